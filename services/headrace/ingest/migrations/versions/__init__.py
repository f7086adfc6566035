"""One file a version; run at start by `storage`."""
