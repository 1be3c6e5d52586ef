"""Many answers at once: engine, scheduler, KV cache, sampler, constraint, text stream."""
