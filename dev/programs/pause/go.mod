module largeforge.ai/dev/programs/pause

go 1.26.0
