"""vidproc turns large video archives into tables that people can query.

Importing this package stays light: torch, ray and the codec load where they are used.
"""

__version__ = "0.2.0"
