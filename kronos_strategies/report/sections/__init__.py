"""One module a section of the page: a study in, a `Section` out."""
