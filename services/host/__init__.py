"""Engine processes on this machine: started, watched, restarted, ended."""
