package plan_test

import (
	"testing"

	"github.com/ebb-storage/ebb/internal/plan"
)

func BenchmarkDecide(b *testing.B) {
	l, p, r := plan.DefaultLimits(), prices(), enforce()
	for name, in := range map[string]plan.Facts{"none": disk(1000, 376, 300), "shrink": disk(1000, 1000, 300), "grow": disk(1000, 100, 95)} {
		h := known(in.UsedBytes / gib)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				plan.Decide(now, in, h, r, l, p)
			}
		})
	}
}
