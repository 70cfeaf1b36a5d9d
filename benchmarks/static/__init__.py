"""What can be known of a kernel without a GPU: from its machine code and from the geometry."""
