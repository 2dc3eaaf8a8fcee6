//! What this host has of what each rung needs; `penstock doctor` prints it.
