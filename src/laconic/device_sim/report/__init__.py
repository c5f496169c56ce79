"""Pages and pictures of what runs of scenarios have left: `laconic sim report`."""
