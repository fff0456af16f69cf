package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
)

func surveyOf(ids ...contract.DiskID) (in contract.SurveyInput) {
	for _, id := range ids {
		in.Disks = append(in.Disks, contract.SurveyDisk{Disk: id, LookBack: 24 * time.Hour})
	}
	return in
}

func TestSurveyAnswersInOrder(t *testing.T) {
	d, u := newFakeDisks(testDisk, otherDisk), NewUsage()
	s := newSurveyor(d, u)
	s.now = func() time.Time { return time.Unix(500_000*3600+1800, 0) }
	gone := contract.DiskID("d-0123456789abcdef9")
	guide := contract.Guide{HeadroomBytes: contract.GiB, CeilingGiB: 40}
	in := surveyOf(otherDisk, gone, testDisk)
	in.Disks[1].Guide, in.Disks[2].Guide = &guide, &guide
	out, err := s.disks(t.Context(), in)
	require.NoError(t, err)
	require.Len(t, out.Disks, 3)
	for i := range in.Disks {
		require.Equal(t, in.Disks[i].Disk, out.Disks[i].Disk)
	}
	require.Contains(t, out.Disks[1].Problem, "not assembled on this node")
	require.Nil(t, out.Disks[1].Measurement)
	for _, i := range []int{0, 2} {
		require.Empty(t, out.Disks[i].Problem)
		require.Equal(t, contract.GiB, out.Disks[i].Measurement.PoolUsedBytes)
		require.Equal(t, contract.GiB, out.Disks[i].Usage.PeakUsedBytes)
		require.Equal(t, 30*time.Minute, out.Disks[i].Usage.Known)
	}
	require.Len(t, u.Latest(), 2, "measurements are observed")
	kept := map[contract.DiskID]contract.Guide{testDisk: guide} // a disk that is not here keeps none
	require.Equal(t, kept, u.guides)
	require.Equal(t, guide, d.inputs["Guide "+string(testDisk)])

	// The hours themselves, where they are asked for.
	require.Nil(t, out.Disks[0].Hours)
	hours := surveyOf(testDisk, gone)
	hours.Hours = true
	out, err = s.disks(t.Context(), hours)
	require.NoError(t, err)
	told, err := out.Disks[0].Hours.Hours()
	require.NoError(t, err)
	require.Len(t, told, 1)
	require.Nil(t, out.Disks[1].Hours)
	hours.Since = s.now()
	hours.Since = hours.Since.Add(time.Hour)
	out, err = s.disks(t.Context(), hours)
	require.NoError(t, err)
	require.NotNil(t, out.Disks[0].Hours)
	require.Empty(t, out.Disks[0].Hours)

	// No guide leaves the last one.
	_, err = s.disks(t.Context(), surveyOf(testDisk))
	require.NoError(t, err)
	require.Equal(t, kept, u.guides)
}

// A disk that does not answer delays no other, and is not asked again while the
// first look at it lasts.
func TestSurveyLeavesAStuckDiskBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ids []contract.DiskID
		for i := range 40 {
			ids = append(ids, contract.DiskID(fmt.Sprintf("d-%017x", i)))
		}
		d := newFakeDisks(ids...)
		s := newSurveyor(d, NewUsage())
		release := make(chan struct{})
		var once sync.Once
		var at, most atomic.Int32
		d.handle(func(ctx context.Context, call string, _ func(contract.CopyProgress)) error {
			if call != "Measure" {
				return nil
			}
			n := at.Add(1)
			defer at.Add(-1)
			most.Store(max(most.Load(), n))
			stuck := false
			once.Do(func() { stuck = true })
			if stuck {
				<-release // whatever the context says
			}
			sleep(ctx, time.Second)
			return nil
		})
		began := time.Now()
		out, err := s.disks(t.Context(), surveyOf(ids...))
		require.NoError(t, err)
		require.Less(t, time.Since(began), surveyPatience+2*time.Second)
		require.LessOrEqual(t, most.Load(), int32(surveyAtOnce))
		bad := 0
		for _, got := range out.Disks {
			if got.Problem != "" {
				bad++
				require.Contains(t, got.Problem, "does not answer within 15s")
				require.Contains(t, got.Problem, string(got.Disk))
				require.Contains(t, got.Problem, "next: ")
			}
		}
		require.Equal(t, 1, bad)

		began = time.Now()
		out, err = s.disks(t.Context(), surveyOf(ids...))
		require.NoError(t, err)
		require.Less(t, time.Since(began), surveyPatience)
		bad = 0
		for _, got := range out.Disks {
			if got.Problem != "" {
				bad++
				require.Contains(t, got.Problem, "has not ended")
			}
		}
		require.Equal(t, 1, bad)
		close(release)
		synctest.Wait()
		sleep(t.Context(), time.Minute)
		out, err = s.disks(t.Context(), surveyOf(ids...))
		require.NoError(t, err)
		for _, got := range out.Disks {
			require.Empty(t, got.Problem)
		}
	})
}

func TestSurveyEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFakeDisks(testDisk, otherDisk)
		s := newSurveyor(d, NewUsage())
		d.handle(func(ctx context.Context, _ string, _ func(contract.CopyProgress)) error {
			<-ctx.Done()
			return ctx.Err()
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := s.disks(ctx, surveyOf(testDisk, otherDisk))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		synctest.Wait()
	})
}

func TestSurveyToldInWords(t *testing.T) {
	d := newFakeDisks(testDisk, otherDisk)
	s := newSurveyor(d, NewUsage())
	d.handle(func(_ context.Context, call string, _ func(contract.CopyProgress)) error {
		if call == "History" {
			return errors.New("read error")
		}
		return nil
	})
	out, err := s.disks(t.Context(), surveyOf(testDisk))
	require.NoError(t, err)
	require.NotNil(t, out.Disks[0].Measurement, "the past is no condition")
	require.Contains(t, out.Disks[0].Problem, "history cannot be read: read error")

	d.handle(func(context.Context, string, func(contract.CopyProgress)) error { panic("a defect") })
	out, err = s.disks(t.Context(), surveyOf(testDisk))
	require.NoError(t, err)
	require.Contains(t, out.Disks[0].Problem, "panic: a defect")
}

func TestHeadersAnswerInOrder(t *testing.T) {
	d := newFakeDisks(testDisk)
	s := newSurveyor(d, NewUsage())
	other := "vol-0123456789abcdef1"
	d.handle(func(_ context.Context, call string, _ func(contract.CopyProgress)) error {
		if call == "Header "+other {
			return errors.New("read error")
		}
		return nil
	})
	out, err := s.headers(t.Context(), contract.ReadHeadersInput{Volumes: []string{other, testVol}})
	require.NoError(t, err)
	require.Equal(t, other, out.Headers[0].Volume)
	require.Equal(t, "read error", out.Headers[0].Problem)
	require.Equal(t, contract.VolumeHeader{Volume: testVol, Present: true, Disk: testDisk}, out.Headers[1])
}

func TestCheckSurvey(t *testing.T) {
	require.NoError(t, checkSurvey(surveyOf(testDisk, otherDisk)))
	for want, in := range map[string]contract.SurveyInput{
		"0 disks":     {},
		"501 disks":   {Disks: make([]contract.SurveyDisk, 501)},
		"disks[0]":    surveyOf("nonsense"),
		"named twice": surveyOf(testDisk, testDisk),
	} {
		require.ErrorContains(t, checkSurvey(in), want)
	}
	require.NoError(t, checkHeaders(contract.ReadHeadersInput{Volumes: []string{testVol}}))
	require.ErrorContains(t, checkHeaders(contract.ReadHeadersInput{}), "0 volumes")
	require.ErrorContains(t, checkHeaders(contract.ReadHeadersInput{Volumes: []string{"vol-x"}}), "vol-x")
	require.ErrorContains(t, checkHeaders(contract.ReadHeadersInput{Volumes: make([]string, 501)}), "at most 500")
}

// What nobody could follow is told of the one disk that it is wanted of.
func TestSurveyForgetsAGuide(t *testing.T) {
	d := newFakeDisks(testDisk)
	u := NewUsage()
	s := newSurveyor(d, u)
	ask := func(in contract.SurveyDisk) {
		in.Disk = testDisk
		_, err := s.disks(t.Context(), contract.SurveyInput{Disks: []contract.SurveyDisk{in}})
		require.NoError(t, err)
	}
	ask(contract.SurveyDisk{Guide: &contract.Guide{CeilingGiB: 40, FailAtCeiling: true}})
	ask(contract.SurveyDisk{})
	_, told := u.guide(testDisk)
	require.True(t, told, "a what-if changes nothing")
	ask(contract.SurveyDisk{Forget: true})
	_, told = u.guide(testDisk)
	require.False(t, told)
	require.NotContains(t, d.inputs, "Guide "+string(testDisk))
}

func TestSurveyTellsABadGuide(t *testing.T) {
	d := newFakeDisks(testDisk, otherDisk)
	s := newSurveyor(d, NewUsage())
	guide := func(change func(*contract.Guide)) contract.SurveyDisk {
		g := contract.Guide{}
		change(&g)
		return contract.SurveyDisk{Disk: testDisk, Guide: &g}
	}
	good := guide(func(g *contract.Guide) {
		*g = contract.Guide{HeadroomBytes: contract.GiB, HeadroomPercent: .1, HeadroomTime: time.Hour, ExtraBytes: 1, ExtraUntil: time.Unix(1, 0), CeilingGiB: 1, FailAtCeiling: true}
	})
	survey := func(in contract.SurveyDisk) contract.DiskSurvey {
		out, err := s.disks(t.Context(), contract.SurveyInput{Disks: []contract.SurveyDisk{in, {Disk: otherDisk}}})
		require.NoError(t, err)
		require.Empty(t, out.Disks[1].Problem)
		return out.Disks[0]
	}
	require.Empty(t, survey(good).Problem)
	for want, in := range map[string]contract.SurveyDisk{
		"lookBack":          {Disk: testDisk, LookBack: -1},
		"headroomBytes":     guide(func(g *contract.Guide) { g.HeadroomBytes = -1 }),
		"headroomPercent":   guide(func(g *contract.Guide) { g.HeadroomPercent = math.NaN() }),
		"headroomTimeNanos": guide(func(g *contract.Guide) { g.HeadroomTime = -1 }),
		"extraUntil":        guide(func(g *contract.Guide) { g.ExtraBytes = 1 }),
		"ceilingGiB: want":  guide(func(g *contract.Guide) { g.CeilingGiB = 65537 }),
		"settings":          guide(func(g *contract.Guide) { g.Settings.MinGrowGiB = -1 }),
	} {
		got := survey(in)
		require.Contains(t, got.Problem, want)
		require.NotNil(t, got.Measurement)
		require.Equal(t, *good.Guide, s.usage.guides[testDisk], "the last good one holds")
	}
}

// A disk that leaves the node takes its guide with it; one that stays keeps it.
func TestGuideLeavesWithItsDisk(t *testing.T) {
	d, u := newFakeDisks(testDisk), NewUsage()
	a := NewActivities(d, u, NewMetrics(u, "test"), nil, slog.New(slog.DiscardHandler))
	u.setGuide(testDisk, contract.Guide{CeilingGiB: 4, FailAtCeiling: true})
	d.handle(func(context.Context, string, func(contract.CopyProgress)) error { return errors.New("in use") })
	_, err := a.disassemble(t.Context(), contract.DisassembleDiskInput{Disk: testDisk})
	require.ErrorContains(t, err, "in use")
	_, told := u.guide(testDisk)
	require.True(t, told)
	d.handle(nil)
	_, err = a.disassemble(t.Context(), contract.DisassembleDiskInput{Disk: testDisk})
	require.NoError(t, err)
	_, told = u.guide(testDisk)
	require.False(t, told)
}
