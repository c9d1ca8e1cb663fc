"""Questions about a model and their answers; the only place where a trained model is measured."""
