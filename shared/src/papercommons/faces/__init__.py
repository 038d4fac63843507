"""Finding, cropping and following faces; the default detector needs ``papercommons[faces]``."""
