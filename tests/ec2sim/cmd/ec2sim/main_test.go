package main

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestArguments(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // start, then stop at once
	dir := t.TempDir()
	for _, test := range []struct {
		args []string
		err  string
	}{
		{[]string{"--state", dir, "--listen", "127.0.0.1:0", "--instance", "i-0123456789abcdef0,m5.large,us-east-1a", "--lag", "1s"}, ""},
		{[]string{"--listen", "127.0.0.1:0"}, "StateDir is required"},
		{[]string{"--state", dir, "--listen", "127.0.0.1:0", "--instance", "node-1"}, "Malformed"},
		{[]string{"--state", dir, "--listen", "127.0.0.1:0", "--instance", "i-0123456789abcdef1,m5.large,us-west-9z"}, "no zone"},
		{[]string{"--state", dir, "--instance", "a,b,c,d"}, "want id,type,zone"},
	} {
		err := run(ctx, test.args)
		if test.err == "" {
			require.NoError(t, err, test.args)
		} else {
			require.ErrorContains(t, err, test.err, test.args)
		}
	}
}
