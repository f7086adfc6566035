"""The answer: which products a person sees, ranked by the release that is being served."""
