package main

import (
	"context"
	"time"
)

// spinExperiment keeps the node busy for 10 ms of every second, which the host
// holds against its count of it.
func spinExperiment(ctx context.Context, _ *rig) error {
	for range 30 {
		for start := time.Now(); time.Since(start) < 10*time.Millisecond; {
			continue
		}
		if err := sleep(ctx, 990*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}
