"""Parts of jobs/train_demo_models.py, which trains the two embedded models."""
