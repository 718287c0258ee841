"""All that the commands print, for people and (``--json``) for machines; one file per group."""
