package trace

import (
	"math"
	"math/rand/v2"
)

const (
	hour int64 = 3600
	day        = 24 * hour
)

// fullest is how far the application lets its disk fill: before that somebody
// would have made it larger.
const fullest = .93

// workload writes the usage of one disk, event by event.
type workload struct {
	r          *rand.Rand
	at, end    int64 // seconds
	used       int64
	capacity   int64
	throughput int64 // bytes a second the volume takes
	samples    []Sample
}

// emit adds a sample of what is.
func (w *workload) emit(iops, mibs float32) {
	s := Sample{At: w.at, Used: w.used, Capacity: w.capacity, IOPS: iops, MiBs: mibs}
	if n := len(w.samples); n > 0 && w.samples[n-1].At == w.at {
		w.samples[n-1].Used = s.Used
		return
	}
	w.samples = append(w.samples, s)
}

func (w *workload) done() bool { return w.at >= w.end }

// stay keeps usage as it is until a moment.
func (w *workload) stay(until int64) {
	until = min(until, w.end)
	if until > w.at {
		w.at = until
		w.emit(50, 1)
	}
}

// wait is stay, for a time.
func (w *workload) wait(seconds int64) { w.stay(w.at + max(seconds, 1)) }

// room is what can still be written.
func (w *workload) room() int64 {
	return max(int64(float64(w.capacity)*fullest)-w.used, 0)
}

// write adds bytes at a rate and says how many it did: no more than there is
// room or time for, no faster than the volume takes them.
func (w *workload) write(bytes, rate int64) int64 {
	bytes = min(bytes, w.room())
	rate = max(min(rate, w.throughput), 1)
	if bytes <= 0 || w.done() {
		return 0
	}
	seconds := max((bytes+rate-1)/rate, 1)
	if left := w.end - w.at; seconds > left {
		bytes = bytes * left / seconds
		seconds = left
	}
	w.at += seconds
	w.used += bytes
	mibs := float32(rate / MiB)
	w.emit(max(mibs*8, 100), mibs)
	return bytes
}

// remove deletes bytes, which takes a moment.
func (w *workload) remove(bytes int64) {
	bytes = min(bytes, w.used-w.used/100)
	if bytes <= 0 || w.done() {
		return
	}
	w.at = min(w.at+max(5, bytes/(20*GiB)), w.end)
	w.used -= bytes
	w.emit(400, 5)
}

func (w *workload) chance(p float64) bool { return w.r.Float64() < p }

// between draws evenly.
func (w *workload) between(low, high float64) float64 { return low + (high-low)*w.r.Float64() }

// share of a number of bytes, drawn evenly.
func (w *workload) share(of int64, low, high float64) int64 {
	return int64(float64(of) * w.between(low, high))
}

// seconds of a time that is exponential around a mean.
func (w *workload) about(mean int64) int64 {
	return int64(math.Min(w.r.ExpFloat64(), 6) * float64(mean))
}

// rate draws what an application writes a second, in bytes.
func (w *workload) rate(lowMiBs, highMiBs float64) int64 {
	return int64(w.between(lowMiBs, highMiBs) * float64(MiB))
}

// double is the sudden fill: somebody copies a whole tree, restores a backup,
// downloads the data set again. As much again as is there, as fast as the volume
// goes; of every two one is deleted again, within an hour to three days.
func (w *workload) double() {
	n := w.write(w.used, w.throughput)
	if w.chance(.5) {
		w.wait(w.share(int64(w.between(1, 72))*hour, .5, 1))
		w.remove(n)
	}
}

// morning is the next 09:00 (UTC) of a working day; the trace's days begin at
// midnight, its first is a Monday when it starts on one.
func (w *workload) morning() int64 {
	d := w.at/day + 1
	for (d+3)%7 >= 5 { // day 0, 1970-01-01, was a Thursday
		d++
	}
	return d*day + 9*hour
}

// notebook: people. Little happens; on some working days files and packages
// come; now and then a data set, a doubling, a clean-up.
func (w *workload) notebook() {
	busy := w.between(.1, .7) // share of working days somebody is there
	for !w.done() {
		w.stay(w.morning() + w.about(hour))
		if !w.chance(busy) {
			continue
		}
		w.write(w.share(w.used, .0005, .006), w.rate(.5, 20))
		w.wait(w.about(2 * hour))
		switch p := w.r.Float64(); {
		case p < 1./25: // packages, a model, a data set
			n := w.write(min(w.share(w.capacity, .02, .2), w.used/2), w.rate(20, 110))
			if w.chance(.6) {
				w.wait(w.about(2 * day))
				w.remove(n)
			}
		case p < 1./25+1./60:
			w.double()
		case p < 1./25+1./60+1./30:
			w.remove(w.share(w.used, .1, .4))
		}
	}
}

// training: runs. Each may stage a data set, then writes a checkpoint every 30
// to 60 minutes as fast as the volume goes, keeps the last few and every
// twentieth, and deletes the rest. Days after the end the run is cleaned up, but
// for its last model.
func (w *workload) training() {
	base := w.used
	checkpoint := w.share(base, .03, .15)
	keep := 2 + w.r.IntN(4)
	period := []int64{1800, hour, hour, hour}[w.r.IntN(4)]
	running := w.chance(.5) // the trace begins in the middle of something
	if running {
		base -= int64(keep) * checkpoint
	}
	for !w.done() {
		if !running {
			w.wait(6*hour + w.about(4*day))
		}
		w.run(base, checkpoint, keep, period, running)
		running = false
		w.wait(hour + w.about(2*day))
		// The last model stays; one run in three ends with everything old thrown away.
		model := min(checkpoint/3, w.room())
		target := base + model
		if w.chance(1. / 3) {
			target = w.share(base, .7, 1)
		}
		w.remove(w.used - target)
		base = w.used
	}
}

// run is one training run.
func (w *workload) run(base, checkpoint int64, keep int, period int64, running bool) {
	live, staged := 0, int64(0)
	if running {
		live = keep
	} else {
		w.remove(w.used - base)
		if w.chance(.3) { // a data set of the run's own
			staged = w.write(w.share(base, .2, 1), w.throughput)
		}
	}
	length := min(6*hour+w.about(36*hour), 14*day)
	for began, n := w.at, 1; w.at-began < length && !w.done(); n++ {
		next := w.at + period + int64(w.between(-60, 60))
		if w.write(checkpoint, w.throughput) < checkpoint {
			// No room: the oldest goes first.
			w.remove(checkpoint)
			live--
		}
		live++
		if live > keep {
			w.wait(int64(w.between(10, 240))) // it is checked, uploaded, then the oldest goes
			if n%20 != 0 {
				w.remove(checkpoint)
			}
			live--
		}
		w.stay(next)
	}
	if staged > 0 && w.chance(.8) {
		w.remove(staged)
	}
}

// dataset: a version stays for weeks; the next one is written beside it, and the
// old one goes days later.
func (w *workload) dataset() {
	for !w.done() {
		w.wait(3*day + w.about(28*day))
		old := w.used
		switch {
		case w.chance(.6): // a new version
			w.write(w.share(old, .7, 1.3), w.rate(60, 250))
			w.wait(6*hour + w.about(3*day))
			w.remove(w.share(old, .8, 1))
		case w.chance(.7): // more of the same
			w.write(w.share(old, .05, .4), w.rate(30, 200))
		default:
			w.double()
		}
	}
}

// database: slow growth, more by day; a dump every night that is gone by the
// morning; a rebuilt index, a bulk load, a table dropped.
func (w *workload) database(iops float32) {
	growth := math.Exp(w.r.NormFloat64()*.8) * .0015 // share a day
	dumps := w.chance(.4)
	dump := w.between(.03, .12)
	night := hour * int64(1+w.r.IntN(4))
	for !w.done() {
		midnight := w.at / day * day
		if dumps {
			w.stay(midnight + night)
			n := w.write(int64(float64(w.used)*dump), w.rate(30, 100))
			w.wait(hour + w.about(hour))
			w.remove(n)
		}
		w.stay(midnight + 8*hour)
		n := int64(float64(w.used) * growth * w.between(.3, 1.7))
		w.write(n, max(n/(12*hour), 1))
		if iops > 0 && len(w.samples) > 0 {
			w.samples[len(w.samples)-1].IOPS = iops * float32(w.between(.3, .8))
		}
		switch p := w.r.Float64(); {
		case p < 1./40: // an index is rebuilt
			n := w.write(w.share(w.used, .05, .25), w.rate(40, 120))
			w.wait(hour / 2)
			w.remove(n)
		case p < 1./40+1./120: // bulk load
			w.write(w.share(w.used, .1, .6), w.rate(30, 120))
		case p < 1./40+1./120+1./90: // dropped, vacuumed
			w.remove(w.share(w.used, .1, .3))
		case p < 1./40+1./120+1./90+1./180:
			w.double()
		}
		w.stay(midnight + day)
	}
}

// log: fills and drops. Some keep a number of days and delete the oldest each
// midnight; others fill until somebody or something purges. Sometimes an
// incident writes many times as much.
func (w *workload) log() {
	if w.chance(.6) {
		w.rolling()
		return
	}
	low := w.share(w.used, .3, .9)
	high := min(w.share(w.used, 1.2, 2.5), int64(float64(w.capacity)*fullest))
	period := w.between(1, 14) * float64(day)
	rate := max(int64(float64(high-low)/period), 1)
	for !w.done() {
		w.logHours(rate, 6)
		if w.used >= high-high/50 || w.room() == 0 {
			w.remove(w.used - low)
		}
	}
}

// rolling keeps some days of logs.
func (w *workload) rolling() {
	days := []int64{}
	keep := 3 + w.r.IntN(12)
	daily := w.used / int64(keep)
	for range keep {
		days = append(days, daily)
	}
	for !w.done() {
		before := w.used
		midnight := w.at/day*day + day
		for w.at < midnight && !w.done() {
			w.logHours(max(daily/day, 1), min(6, max((midnight-w.at)/hour, 1)))
		}
		days = append(days, w.used-before)
		w.remove(days[0])
		days = days[1:]
	}
}

// logHours writes at about a rate for some hours: twice as much by day as by
// night, and in a few of them an incident.
func (w *workload) logHours(rate, hours int64) {
	f := w.between(.7, 1.3) * .67
	if h := w.at % day / hour; h >= 8 && h < 20 {
		f *= 2
	}
	if w.chance(1. / 200) {
		f *= w.between(4, 20)
	}
	r := max(int64(float64(rate)*f), 1)
	began := w.at
	w.write(r*hours*hour, r)
	w.stay(began + hours*hour)
}

// scratch: builds and batch jobs. Some times on a working day something big is
// written, kept for hours and deleted.
func (w *workload) scratch() {
	base := w.used
	for !w.done() {
		w.stay(w.morning() + w.about(hour))
		for range 1 + w.r.IntN(3) {
			n := w.write(min(w.share(base, .1, .8), w.share(w.capacity, .1, .5)), w.rate(40, 125))
			w.wait(hour/2 + w.about(2*hour))
			w.remove(n)
			w.wait(w.about(hour))
		}
		switch p := w.r.Float64(); {
		case p < 1./30:
			w.double()
		case p < 1./30+1./20: // somebody tidies up
			w.remove(w.used - w.share(base, .6, 1))
		}
	}
}
