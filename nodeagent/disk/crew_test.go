package disk

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBoutProvesWholeAreas(t *testing.T) {
	for name, x := range map[string]struct {
		compare bool
		same    []bool // of the chunks, in the order of their ends
		want    areaState
	}{
		"all equal":        {true, []bool{true, true, true}, areaProven},
		"first differs":    {true, []bool{false, true, true}, areaCopied},
		"last differs":     {true, []bool{true, true, false}, areaCopied},
		"only copied":      {false, []bool{true, true, true}, areaCopied},
		"one chunk failed": {true, []bool{true, true}, areaBlank},
	} {
		t.Run(name, func(t *testing.T) {
			var a area
			b := &bout{x: &a, compare: x.compare, open: 1}
			for range 3 {
				b.begin()
			}
			for _, same := range x.same {
				require.Equal(t, areaBlank, a.state)
				b.end(same)
			}
			b.end(true)
			require.Equal(t, x.want, a.state)
		})
	}
}
