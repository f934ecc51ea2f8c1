"""What ``adseq check`` looks at, a module a part of the home. Nothing here writes."""
