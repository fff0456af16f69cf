package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/starter/internal/control"
	"github.com/ebb-storage/ebb/starter/internal/size"
	"github.com/ebb-storage/ebb/starter/internal/ui"
)

// topFleet answers top from memory.
type topFleet struct {
	mu      sync.Mutex
	reports []contract.DiskReport
	running map[contract.DiskID]control.Running
	looked  map[contract.DiskID]control.Snapshot
	err     error
	asked   atomic.Int64
}

func (f *topFleet) Inspect(context.Context, contract.InspectInput) ([]contract.DiskReport, error) {
	f.asked.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.reports, f.err
}

func (f *topFleet) Nodes(context.Context) ([]string, error) { return nil, nil }

func (f *topFleet) AllRunning(context.Context) (map[contract.DiskID]control.Running, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.running, f.err
}

func (f *topFleet) Look(_ context.Context, r control.Running) (control.Snapshot, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, ok := f.looked[r.Disk.ID]
	return s, ok, nil
}

func (f *topFleet) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

// topReport is a disk of size, backing and used GiB.
func topReport(name string, sizeGiB, backing, used int64, change func(*contract.Measurement)) contract.DiskReport {
	id := contract.DiskID("d-" + name)
	r := contract.DiskReport{Facts: contract.DiskFacts{Disk: id, Name: name, Volumes: []contract.VolumeFacts{{SizeGiB: backing, Role: contract.RoleActive, Generation: 1, Node: "i-1"}}}}
	if change == nil {
		r.Unmeasured = "no agent answers on node i-1"
		return r
	}
	r.Measurement = &contract.Measurement{Disk: id, Name: name, SizeBytes: sizeGiB << 30, BackingBytes: backing << 30, PoolBytes: backing << 30, PoolUsedBytes: used << 30}
	change(r.Measurement)
	return r
}

func newTopFleet() *topFleet {
	as := func(*contract.Measurement) {}
	return &topFleet{
		reports: []contract.DiskReport{
			topReport("calm", 1000, 100, 50, as),
			topReport("busy", 1000, 100, 80, func(m *contract.Measurement) { m.FillRate = 1 << 20 }),
			topReport("dead", 1000, 100, 0, nil),
			topReport("capped", 100, 100, 95, as),
			topReport("soon", 1000, 100, 99, func(m *contract.Measurement) { m.FillRate = 10 << 20 }),
			topReport("sooner", 1000, 100, 99, func(m *contract.Measurement) { m.FillRate = 100 << 20 }),
			topReport("full", 1000, 100, 100, func(m *contract.Measurement) { m.Full = true }),
		},
		running: map[contract.DiskID]control.Running{
			"d-calm": {Disk: control.Disk{ID: "d-calm", Name: "calm"}, Operation: contract.ShrinkWorkflow, Since: time.Now().Add(-time.Minute)},
			"d-full": {Disk: control.Disk{ID: "d-full", Name: "full"}, Operation: contract.GrowWorkflow, Since: time.Now().Add(-time.Second)},
		},
		looked: map[contract.DiskID]control.Snapshot{
			"d-calm": {
				Progress: contract.Progress{Disk: "d-calm", Operation: contract.ShrinkWorkflow, Phase: contract.PhaseCopy, Step: 7, Steps: 10, FromGiB: 1000, ToGiB: 100},
				Copy:     &contract.CopyProgress{Phase: contract.PhaseCopy, DoneBytes: 30 << 30, TotalBytes: 60 << 30, RateMiBs: 256, ETASeconds: 120},
			},
			"d-full": {Progress: contract.Progress{Disk: "d-full", Operation: contract.GrowWorkflow, Phase: contract.PhaseModify, Step: 2, Steps: 3}},
		},
	}
}

func names(d topData) string {
	var s []string
	for _, x := range d.Disks {
		s = append(s, x.Name)
	}
	return strings.Join(s, " ")
}

func TestTopPutsTroubleFirst(t *testing.T) {
	f := newTopFleet()
	require.Equal(t, "full sooner soon capped dead busy calm", names(measured(time.Now(), f.reports, "used")))
	require.Equal(t, "full sooner soon capped dead busy calm", names(measured(time.Now(), f.reports, "free")))
	require.Equal(t, "full sooner soon capped dead calm busy", names(measured(time.Now(), append(f.reports[2:], f.reports[1], topReport("calm", 2000, 100, 50, func(*contract.Measurement) {})), "saving")))
	d := measured(time.Now(), f.reports, "fill")
	require.Equal(t, topTotals{
		Disks: 7, Unmeasured: 1, Troubled: 5, UsedBytes: 523 << 30, BackingBytes: 700 << 30, SizeBytes: 5100 << 30,
		Utilization: 523. / 600, SavedBytes: 4500 << 30,
	}, d.Totals)
	require.Equal(t, "full, writes wait", d.Disks[0].State)
	require.Equal(t, "full in 10s", d.Disks[1].State)
}

func TestTopFitsEveryScreen(t *testing.T) {
	f := newTopFleet()
	f.reports[0].Facts.Name = strings.Repeat("größe/", 30) + "\x1b[2J"
	d := measured(time.Now(), f.reports, "used")
	ops, err := underWay(t.Context(), f, 20)
	require.NoError(t, err)
	d.Operations = ops
	d.Problem = "Temporal does not answer"
	for width := 1; width < 200; width += 3 {
		for height := 1; height < 40; height++ {
			lines := d.page(time.Now(), width, height, 20)
			require.LessOrEqual(t, len(lines), height)
			for _, l := range lines {
				require.LessOrEqual(t, len([]rune(l.text)), width)
				require.NotContains(t, l.text, "\x1b")
			}
		}
	}
	empty := measured(time.Now(), nil, "used")
	require.Contains(t, fmt.Sprint(empty.page(time.Now(), 80, 24, 20)), "no disks")
}

func TestTopOnce(t *testing.T) {
	var out strings.Builder
	a := &app{streams: ui.Streams{Out: &out, Err: io.Discard}, output: ui.TableFormat}
	require.NoError(t, a.runTop(t.Context(), newTopFleet(), topOptions{rows: 3, sort: "used", every: size.DurationFlag(time.Second)}))
	page := out.String()
	require.NotContains(t, page, "\x1b")
	for _, want := range []string{
		"7 disks, 5 in trouble, 2 operations", " 87%  523 GiB used of 700 GiB backing", "saved 4.39 TiB of 4.98 TiB full size (88%); 1 disks not measured",
		"shrink calm 1000 -> 100 GiB  7/10 copy  [#####.....]  50%  256 MiB/s  ETA 2m00s", "grow full  2/3 modify  for 1s",
		"full    [##########]  100%", "and 4 more disks",
	} {
		require.Contains(t, page, want)
	}
	require.NotContains(t, page, "dead", "more disks than were asked for")
	out.Reset()
	a.output = ui.JSONFormat
	require.NoError(t, a.runTop(t.Context(), newTopFleet(), topOptions{rows: 3, sort: "used"}))
	require.Contains(t, out.String(), `"fullInSeconds": 10.24`)
}

// pty is a terminal of the given size and its other end.
func pty(t *testing.T, cols, rows uint16) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("there are no pseudo terminals here: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	require.NoError(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { slave.Close() })
	resize(t, master, cols, rows)
	return master, slave
}

func resize(t *testing.T, master *os.File, cols, rows uint16) {
	t.Helper()
	require.NoError(t, unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: cols, Row: rows}))
}

// seen is what was drawn on a terminal so far.
type seen struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *seen) read(master *os.File) {
	b := make([]byte, 4096)
	for {
		n, err := master.Read(b)
		s.mu.Lock()
		s.text.Write(b[:n])
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (s *seen) has(want string) func() bool {
	return func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return strings.Contains(s.text.String(), want)
	}
}

func (s *seen) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Reset()
}

const patience = 20 * time.Second

// live runs top on a terminal.
func live(ctx context.Context, t *testing.T, f *topFleet) (master, slave *os.File, s *seen, ended chan error) {
	master, slave = pty(t, 100, 30)
	s = &seen{}
	go s.read(master) // ends when the test closes the terminal
	a := &app{streams: ui.Streams{In: slave, Out: slave, Err: io.Discard}, output: ui.TableFormat}
	ended = make(chan error, 1)
	go func() {
		ended <- a.runTop(ctx, f, topOptions{rows: 20, sort: "used", every: size.DurationFlag(50 * time.Millisecond)})
	}()
	return master, slave, s, ended
}

func result(t *testing.T, ended chan error) error {
	t.Helper()
	select {
	case err := <-ended:
		return err
	case <-time.After(patience):
		require.Fail(t, "top does not end")
		return nil
	}
}

func TestTopOnATerminal(t *testing.T) {
	for _, leave := range []string{"q", "\x03", "\x1b", "cancel"} {
		t.Run(fmt.Sprintf("%q", leave), func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			f := newTopFleet()
			master, slave, s, ended := live(ctx, t, f)
			require.Eventually(t, s.has("full in 10s"), patience, 10*time.Millisecond)
			require.Eventually(t, s.has("ETA 2m"), patience, 10*time.Millisecond)
			require.True(t, s.has(enterScreen)())
			raw, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
			require.NoError(t, err)
			require.Zero(t, raw.Lflag&unix.ECHO, "what is typed would be shown")

			// A narrow window cuts lines; a failure is shown and passes.
			resize(t, master, 30, 8)
			require.Eventually(t, s.has("..."+clearLine), patience, 10*time.Millisecond)
			resize(t, master, 100, 30)
			f.fail(errors.New("Temporal is away"))
			require.Eventually(t, s.has("Temporal is away"), patience, 10*time.Millisecond)
			f.fail(nil)
			asked := f.asked.Load()
			require.Eventually(t, func() bool { return f.asked.Load() > asked+2 }, patience, 10*time.Millisecond)

			s.reset()
			if leave == "cancel" {
				cancel()
			} else {
				_, err = master.WriteString(leave)
				require.NoError(t, err)
			}
			require.NoError(t, result(t, ended))
			require.Eventually(t, s.has(leaveScreen), patience, 10*time.Millisecond)
			after, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
			require.NoError(t, err)
			require.NotZero(t, after.Lflag&unix.ECHO, "the terminal was not given back")
			require.True(t, term.IsTerminal(int(slave.Fd())))
		})
	}
}

// A fleet that cannot be asked at all is an error, and the terminal is given back.
func TestTopGivesTheTerminalBackWhenItFails(t *testing.T) {
	f := newTopFleet()
	f.fail(errors.New("nobody is there"))
	_, slave, s, ended := live(t.Context(), t, f)
	require.ErrorContains(t, result(t, ended), "nobody is there")
	require.Eventually(t, s.has(leaveScreen), patience, 10*time.Millisecond)
	after, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	require.NoError(t, err)
	require.NotZero(t, after.Lflag&unix.ECHO)
}

func TestLeaves(t *testing.T) {
	for typed, want := range map[string]bool{"q": true, "Q": true, "\x03": true, "\x1b": true, "\x1b[A": false, "x": false, "": false, "\x1bOq": false} {
		require.Equal(t, want, leaves([]byte(typed)), "%q", typed)
	}
}

func TestShortTime(t *testing.T) {
	for seconds, want := range map[float64]string{-1: "0s", 59: "59s", 61: "1m01s", 3599: "59m", 3661: "1h01m", 1e6: "11d", 1e300: "1157d"} {
		require.Equal(t, want, shortTime(seconds))
	}
}
