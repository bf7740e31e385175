"""A loaded model in memory: what is resident, offloaded, quantised or streamed, and the pool of components."""
