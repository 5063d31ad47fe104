"""Parts of jobs/learn_demo.py, which measures what families of networks learn on the drawn world."""
