"""Training, evaluation, few-shot learning and explanation, on the models that index."""
