"""Scripts that MLflow runs to load a model of adseq: one script a model, copied into the model beside the model's code.

The models are scripts instead of pickled objects: a person can read a script, and loading a script unpickles nothing.
"""
