"""Parts of the page: a module with `TITLE` and `context`, and a template of the same name."""
