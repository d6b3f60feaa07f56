"""Child processes: started, limited, ended, and told why they ended."""
