"""The online half: the stored state of a user meets what they are looking at, and candidates come back."""
