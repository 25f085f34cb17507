"""The Session Studio: pages for people, rendered here, with a JSON twin each."""
