"""Label files, read into plain values: COCO JSON, Kinetics CSV, ActivityNet JSON, or one folder for each class.

Everything that can be wrong with a label file is found here, before anything is trained or scored. Each message names
the file and the line or key.
"""
