"""What an experiment is made of: pure values that know no file, no server and no clock."""
