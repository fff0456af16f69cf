package dm_test

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/tests/node"
)

// Many swaps under I/O, which is slow so that each swap has something to wait for, while every thread is
// showered with the signal that Go's scheduler sends to threads.
func TestNodeSwapUnderLoad(t *testing.T) {
	b := newBench(t)
	b.host.SetFault("vol-a", node.Fault{Kind: node.FaultDelay, DelayMS: 50})
	defer b.host.SetFault("vol-a", node.Fault{})
	old := b.device("t-x", dm.Linear(0, 32*sectors, b.a, 0))
	top := b.device("t-top", dm.Linear(0, 32*sectors, old.Dev, 0))
	inFlight := func() bool {
		count, err := os.ReadFile("/sys/dev/block/" + top.Dev.String() + "/inflight")
		require.NoError(t, err)
		return strings.TrimSpace(string(count)) != "0        0"
	}
	var stop atomic.Bool
	failed := make(chan error, 1)
	go func() {
		var err error
		for err == nil && !stop.Load() {
			err = write("t-top", 0, 8)
		}
		failed <- err
	}()
	signals := make(chan struct{})
	go func() {
		defer close(signals)
		for !stop.Load() {
			threads, _ := os.ReadDir("/proc/self/task")
			for _, thread := range threads {
				tid, _ := strconv.Atoi(thread.Name())
				_ = unix.Tgkill(os.Getpid(), tid, unix.SIGURG)
			}
			time.Sleep(time.Millisecond)
		}
	}()
	for n := range 16 {
		require.Eventually(t, inFlight, patient, time.Millisecond)
		table := []dm.Target{dm.Linear(0, 32*sectors, old.Dev, 0)}
		if n%2 == 0 {
			table = []dm.Target{dm.Linear(0, 16*sectors, old.Dev, 0), dm.Linear(16*sectors, 16*sectors, old.Dev, 16*sectors)}
		}
		b.swap("t-top", dm.ResumeFlags{NoFlush: n%4 < 2}, table...)
	}
	stop.Store(true)
	<-signals
	require.NoError(t, <-failed)
}

// childEnv makes TestNodeKilledInSwap the process that is killed.
const childEnv = "EBB_TEST_SWAP"

// A process that is killed at any moment of a swap leaves no device suspended (invariant I3).
func TestNodeKilledInSwap(t *testing.T) {
	b := newBench(t)
	table := func(n int) dm.Target { return dm.Linear(0, 32*sectors, b.a, uint64(n%2)*32*sectors) }
	if os.Getenv(childEnv) != "" {
		for n := 0; ; n++ { // until killed
			b.swap("t-top", dm.ResumeFlags{NoFlush: n%3 == 0}, table(n))
		}
	}
	b.host.SetFault("vol-a", node.Fault{Kind: node.FaultDelay, DelayMS: 20})
	defer b.host.SetFault("vol-a", node.Fault{})
	b.device("t-top", table(0))
	var stop atomic.Bool
	written := make(chan error, 1)
	go func() {
		var err error
		for err == nil && !stop.Load() {
			err = write("t-top", 0, 2)
		}
		written <- err
	}()
	for n := range 6 {
		before, err := b.Info("t-top")
		require.NoError(t, err)
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestNodeKilledInSwap$")
		cmd.Env = append(os.Environ(), childEnv+"=1")
		require.NoError(t, cmd.Start())
		swapping := func() bool {
			_, live, err := b.Table("t-top")
			require.NoError(t, err)
			return live[0] == table(1)
		}
		require.Eventually(t, swapping, patient, time.Millisecond)
		time.Sleep(time.Duration(n) * 13 * time.Millisecond) // another moment each time
		require.NoError(t, cmd.Process.Kill())
		require.Error(t, cmd.Wait())
		after, err := b.Info("t-top")
		require.NoError(t, err)
		require.False(t, after.Suspended)
		require.Equal(t, before.Dev, after.Dev)
		b.swap("t-top", dm.ResumeFlags{}, table(0))
	}
	stop.Store(true)
	select {
	case err := <-written:
		require.NoError(t, err)
	case <-time.After(patient):
		t.Fatal("writes hang")
	}
}
