package agent

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/usage"
)

const (
	// surveyAtOnce is how many disks or volumes are looked at at the same time.
	surveyAtOnce = 4
	// surveyPatience is how long one of them may take.
	surveyPatience = 15 * time.Second
	// problemBytes bounds the words about one of them: all answers travel in one
	// payload.
	problemBytes = 600
)

// looker looks at many disks or volumes of the node at once. One that does not
// answer delays no other: it is left behind, and not asked again before the look
// at it has ended. The zero value is ready for use.
type looker struct {
	patience time.Duration // 0: surveyPatience

	mu   sync.Mutex
	busy map[string]bool // disks and volumes that are being looked at
}

// surveyor answers for the disks and volumes of the node.
type surveyor struct {
	looker
	d     Disks
	usage *Usage
	now   func() time.Time
}

func newSurveyor(d Disks, u *Usage) *surveyor {
	return &surveyor{d: d, usage: u, now: time.Now}
}

// disks answers SurveyNode. The guides are kept before anything is measured, so
// that a measurement is judged by them. A disk that is not here keeps none, and one
// that nobody could follow is not kept but told.
func (s *surveyor) disks(ctx context.Context, in contract.SurveyInput) (contract.SurveyResult, error) {
	here := s.d.Disks()
	for _, d := range in.Disks {
		if d.Guide == nil && d.Forget {
			s.usage.forgetGuide(d.Disk)
			s.d.Forget(d.Disk)
		}
		if d.Guide != nil && checkGuide(*d.Guide) == nil && slices.Contains(here, d.Disk) {
			s.usage.setGuide(d.Disk, *d.Guide)
			s.d.Guide(d.Disk, *d.Guide)
		}
	}
	out := contract.SurveyResult{Disks: make([]contract.DiskSurvey, len(in.Disks))}
	err := s.each(ctx, len(in.Disks), func(ctx context.Context, i int) {
		d := in.Disks[i]
		got, err := look(ctx, &s.looker, string(d.Disk), func(ctx context.Context) (contract.DiskSurvey, error) { return s.disk(ctx, d, in) })
		if err != nil {
			got.Problem = inWords(err)
		}
		got.Disk = d.Disk
		out.Disks[i] = got
	})
	return out, err
}

// disk measures one disk and sums up its past, or tells it where all is asked for.
// Without the past there is still the measurement.
func (s *surveyor) disk(ctx context.Context, in contract.SurveyDisk, all contract.SurveyInput) (out contract.DiskSurvey, err error) {
	m, err := s.d.Measure(ctx, in.Disk)
	if err != nil {
		return out, err
	}
	s.usage.Observe(&m)
	out.Measurement = &m
	if err := checkSurveyed(in); err != nil {
		return out, fmt.Errorf("%s: %w", contract.BadInput, err)
	}
	records, err := s.d.History(ctx, in.Disk)
	if err != nil {
		return out, fmt.Errorf("its history cannot be read: %w", err)
	}
	out.Usage = usage.Summarize(s.now(), usage.RecordsOf(hoursSince(records, time.Time{})), in.LookBack)
	if all.Hours {
		out.Hours = contract.PackHours(hoursSince(records, all.Since))
	}
	return out, nil
}

// headers answers ReadHeaders.
func (s *surveyor) headers(ctx context.Context, in contract.ReadHeadersInput) (contract.ReadHeadersResult, error) {
	out := contract.ReadHeadersResult{Headers: make([]contract.VolumeHeader, len(in.Volumes))}
	err := s.each(ctx, len(in.Volumes), func(ctx context.Context, i int) {
		id := in.Volumes[i]
		got, err := look(ctx, &s.looker, id, func(ctx context.Context) (contract.VolumeHeader, error) { return s.d.Header(ctx, id) })
		if err != nil {
			got.Problem = inWords(err)
		}
		got.Volume = id
		out.Headers[i] = got
	})
	return out, err
}

// each calls do for 0 to n-1, a few at a time, and waits for all.
func (l *looker) each(ctx context.Context, n int, do func(context.Context, int)) error {
	var wg sync.WaitGroup
	slots := make(chan struct{}, surveyAtOnce)
	for i := range n {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			wg.Wait()
			return ctx.Err()
		}
		wg.Go(func() {
			defer func() { <-slots }()
			do(ctx, i)
		})
	}
	wg.Wait()
	return ctx.Err()
}

// answer of a look.
type answer[Out any] struct {
	out Out
	err error
}

// look calls f for one disk or volume, and waits for it as long as the looker has
// patience. A call into a volume that does not answer cannot be ended: its
// goroutine lives until the kernel gives up, and until then there is no second.
func look[Out any](ctx context.Context, l *looker, name string, f func(context.Context) (Out, error)) (none Out, err error) {
	if !l.enter(name) {
		return none, fmt.Errorf("an earlier look at %s has not ended yet; next: check the volume's status in EC2", name)
	}
	patience := cmp.Or(l.patience, surveyPatience)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	done := make(chan answer[Out], 1)
	go func() { // ends with f
		defer l.leave(name)
		var a answer[Out]
		defer func() {
			if p := recover(); p != nil {
				a.err = fmt.Errorf("panic: %v (a defect of the agent)", p)
			}
			done <- a
		}()
		a.out, a.err = f(ctx)
	}()
	select {
	case a := <-done:
		return a.out, a.err
	case <-ctx.Done():
		return none, fmt.Errorf("%s does not answer within %s: %w; next: check the volume's status in EC2", name, patience, ctx.Err())
	}
}

func (l *looker) enter(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy[name] {
		return false
	}
	if l.busy == nil {
		l.busy = make(map[string]bool)
	}
	l.busy[name] = true
	return true
}

func (l *looker) leave(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.busy, name)
}

// inWords is an error as an answer carries it.
func inWords(err error) string {
	s := err.Error()
	if len(s) > problemBytes {
		s = s[:problemBytes] + " ..."
	}
	return s
}
