"""What several test layers share: waiting without fixed sleeps, free ports, where real vLLM is."""
