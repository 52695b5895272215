"""What Holdline is compared with, each as its users write it; `bench.relays` starts them."""
