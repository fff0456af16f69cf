package report

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// The drawing area of a chart, in the SVG's own units.
const (
	chartWidth  = 960.0
	chartHeight = 280.0
	chartLeft   = 64.0
	chartRight  = 12.0
	chartTop    = 12.0
	chartBottom = 28.0
)

// chart is a drawing of values over time, ready for the template.
type chart struct {
	Width, Height float64
	Left, Right   float64 // of the plot
	Top, Bottom   float64
	Lines         []line
	Bars          []bar
	X, Y          []tick
	Hover         []hover
	Label         string // for those who cannot see it
}

// line is a curve; with Area it is filled down to the axis.
type line struct {
	Name, Class string
	Path        string
	Area        string // empty: a line only
}

type bar struct {
	Class         string
	X, Y, W, H    float64
	Name, Caption string
}

type tick struct {
	At   float64
	Text string
}

// hover is an invisible column that shows its figures.
type hover struct {
	X, W float64
	Text string
}

// curve is what a line is drawn from.
type curve struct {
	name, class string
	area        bool
	values      []float64
}

// lines draws curves over time. unit prints a value of the axis.
func lines(label string, width float64, at []time.Time, curves []curve, top float64, unit func(float64) string) chart {
	c := newChart(label, width)
	if len(at) == 0 {
		return c
	}
	if top == 0 {
		for _, cv := range curves {
			for _, v := range cv.values {
				top = max(top, v)
			}
		}
	}
	low := 0.0
	for _, cv := range curves {
		for _, v := range cv.values {
			low = min(low, v)
		}
	}
	step := niceStep(top-low, 5)
	low, top = math.Floor(low/step)*step, math.Ceil(top/step-1e-9)*step
	if top <= low {
		top = low + step // nothing but zeros
	}
	y := func(v float64) float64 { return c.Bottom - (v-low)/(top-low)*(c.Bottom-c.Top) }
	for v := low; v <= top+step/2; v += step {
		c.Y = append(c.Y, tick{y(v), unit(v)})
	}
	x := c.timeAxis(at)
	for _, cv := range curves {
		var p strings.Builder
		for i, v := range cv.values {
			fmt.Fprintf(&p, "%c%.1f %.1f", "ML"[min(i, 1)], x(at[i]), y(v))
		}
		l := line{Name: cv.name, Class: cv.class, Path: p.String()}
		if cv.area {
			l.Area = fmt.Sprintf("%sL%.1f %.1fL%.1f %.1fZ", p.String(), x(at[len(at)-1]), y(max(low, 0)), x(at[0]), y(max(low, 0)))
		}
		c.Lines = append(c.Lines, l)
	}
	for i, t := range at {
		var b strings.Builder
		b.WriteString(t.UTC().Format("2006-01-02 15:04"))
		for _, cv := range curves {
			fmt.Fprintf(&b, "\n%s: %s", cv.name, unit(cv.values[i]))
		}
		c.column(x, at, i, b.String())
	}
	return c
}

// bars draws stacked columns over time.
func bars(label string, width float64, at []time.Time, curves []curve, unit func(float64) string) chart {
	c := newChart(label, width)
	if len(at) == 0 {
		return c
	}
	top := 1.0
	for i := range at {
		sum := 0.0
		for _, cv := range curves {
			sum += cv.values[i]
		}
		top = max(top, sum)
	}
	step := math.Max(niceStep(top, 4), 1) // they are counts
	top = math.Ceil(top/step-1e-9) * step
	height := c.Bottom - c.Top
	for v := 0.0; v <= top+step/2; v += step {
		c.Y = append(c.Y, tick{c.Bottom - v/top*height, unit(v)})
	}
	x := c.timeAxis(at)
	for i, t := range at {
		text := t.UTC().Format("2006-01-02")
		y := c.Bottom
		left, width := c.span(x, at, i)
		for _, cv := range curves {
			h := cv.values[i] / top * height
			y -= h
			if h > 0 {
				c.Bars = append(c.Bars, bar{Class: cv.class, X: left + width*.12, Y: y, W: width * .76, H: h})
			}
			text += fmt.Sprintf("\n%s: %s", cv.name, unit(cv.values[i]))
		}
		c.column(x, at, i, text)
	}
	return c
}

func newChart(label string, width float64) chart {
	return chart{
		Width: width, Height: chartHeight, Label: label,
		Left: chartLeft, Right: width - chartRight, Top: chartTop, Bottom: chartHeight - chartBottom,
	}
}

// timeAxis sets the ticks and returns where a time is. Each point stands for the
// interval that begins there, so the axis ends one interval after the last.
func (c *chart) timeAxis(at []time.Time) func(time.Time) float64 {
	from, to := at[0], at[len(at)-1]
	if len(at) > 1 {
		to = to.Add(at[1].Sub(at[0]))
	} else {
		to = to.Add(24 * time.Hour)
	}
	x := func(t time.Time) float64 {
		return c.Left + t.Sub(from).Seconds()/to.Sub(from).Seconds()*(c.Right-c.Left)
	}
	days := math.Max(1, math.Round(to.Sub(from).Hours()/24/(c.Width/120)))
	if days > 3 {
		days = math.Ceil(days/7) * 7
	}
	for t := from; t.Before(to); t = t.Add(time.Duration(days) * 24 * time.Hour) {
		if x(t) < c.Right-30 {
			c.X = append(c.X, tick{x(t), t.UTC().Format("Jan 2")})
		}
	}
	return x
}

func (c *chart) span(x func(time.Time) float64, at []time.Time, i int) (left, width float64) {
	left = x(at[i])
	if i+1 < len(at) {
		return left, x(at[i+1]) - left
	}
	return left, c.Right - left
}

func (c *chart) column(x func(time.Time) float64, at []time.Time, i int, text string) {
	left, width := c.span(x, at, i)
	c.Hover = append(c.Hover, hover{left, max(width, .5), text})
}

// niceStep is a round distance between ticks.
func niceStep(span float64, ticks int) float64 {
	if span <= 0 || math.IsNaN(span) || math.IsInf(span, 0) {
		return 1
	}
	raw := span / float64(ticks)
	mag := math.Pow(10, math.Floor(math.Log10(raw)))
	for _, m := range []float64{1, 2, 2.5, 5, 10} {
		if raw <= m*mag*1.0000001 {
			return m * mag
		}
	}
	return 10 * mag
}

// thin makes at most n points of a series: means of levels, sums of counts.
func thin(s []Point, n int) []Point {
	if len(s) <= n {
		return s
	}
	each := (len(s) + n - 1) / n
	out := make([]Point, 0, n)
	for i := 0; i < len(s); i += each {
		part := s[i:min(i+each, len(s))]
		p := Point{At: part[0].At}
		var used, backing, paid, without float64
		for _, q := range part {
			used += float64(q.UsedBytes)
			backing += float64(q.BackingBytes)
			paid += float64(q.PaidBytes)
			without += float64(q.WithoutBytes)
			p.Grows += q.Grows
			p.Urgent += q.Urgent
			p.Shrinks += q.Shrinks
			p.Refused += q.Refused
		}
		k := float64(len(part))
		p.UsedBytes, p.BackingBytes, p.PaidBytes, p.WithoutBytes = int64(used/k), int64(backing/k), int64(paid/k), int64(without/k)
		out = append(out, p)
	}
	return out
}
