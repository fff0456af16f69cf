package wire_test

import (
	"bufio"
	"bytes"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/tests/node/internal/wire"
)

func TestRoundTrip(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, wire.WriteJSON(&b, wire.Ask, wire.Request{Op: wire.OpExec, Exec: &wire.Exec{Args: []string{"true"}}}))
	require.NoError(t, wire.Write(&b, wire.Stdin, nil))
	r := bufio.NewReader(&b)
	var req wire.Request
	require.NoError(t, wire.ReadJSON(r, wire.Ask, &req))
	require.Equal(t, []string{"true"}, req.Exec.Args)
	require.ErrorIs(t, wire.ReadJSON(r, wire.Ask, &req), wire.ErrFrame)
	_, _, err := wire.Read(r)
	require.Equal(t, io.EOF, err)
}

func TestBadFrames(t *testing.T) {
	require.ErrorIs(t, wire.Write(io.Discard, wire.Stdin, make([]byte, 2<<20)), wire.ErrFrame)
	_, _, err := wire.Read(bufio.NewReader(bytes.NewReader([]byte{255, 255, 255, 255, 'i'})))
	require.ErrorIs(t, err, wire.ErrFrame)
	_, _, err = wire.Read(bufio.NewReader(bytes.NewReader([]byte{2, 0, 0, 0, 'i', 1})))
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.ErrorIs(t, wire.Decode([]byte("{"), &struct{}{}), wire.ErrFrame)
}
