"""Scripts that MLflow runs when it loads a model of adseq: one script a model, copied into the model beside the code.

The models are scripts instead of pickled objects: a person can read a script, and loading a script unpickles nothing.
"""
