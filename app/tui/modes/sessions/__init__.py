"""The Sessions mode, with its report and Diff."""
