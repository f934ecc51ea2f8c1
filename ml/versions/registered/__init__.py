"""What MLflow runs when it loads a model of adseq: one script a model, copied into the model beside the code it needs.

Scripts instead of pickled objects: a script can be read, and loading one unpickles nothing.
"""
