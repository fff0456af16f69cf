package ebs_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/tests/node/internal/ebs"
)

func TestTable(t *testing.T) {
	for fault, want := range map[string]string{
		"":                   "0 2048 linear /dev/x 0",
		ebs.FaultNone:        "0 2048 linear /dev/x 0",
		ebs.FaultError:       "0 2048 error",
		ebs.FaultErrorReads:  "0 2048 delay /dev/mapper/ebs-error 0 0 /dev/x 0 0",
		ebs.FaultErrorWrites: "0 2048 flakey /dev/x 0 0 1 1 error_writes",
		ebs.FaultDelay:       "0 2048 delay /dev/x 0 7",
		ebs.FaultDust:        "0 2048 dust /dev/x 0 4096",
	} {
		got, err := ebs.Table(ebs.Volume{ID: "vol-1", Disk: "/dev/x", Bytes: 1 << 20, Fault: fault, DelayMS: 7})
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for _, v := range []ebs.Volume{{}, {Bytes: 511}, {Bytes: -512}, {Bytes: 512, Fault: "flood"}} {
		_, err := ebs.Table(v)
		require.Error(t, err)
	}
}
