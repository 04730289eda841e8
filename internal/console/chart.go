package console

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/sink"
)

// chart is what the template of the same name draws: x in per cent of its
// width, so that it fits any, y in pixels.
type chart struct {
	Label       string
	Legend      []legend
	Rules       []rule
	Bars        []bar
	Lines       []line
	Ticks       []tick
	Hits        []hit
	Top, Height float64
}

type (
	legend struct{ Class, Name, Text string }
	rule   struct {
		Y, TextY float64
		Text     string
	}
	bar struct {
		Class      string
		X, Y, W, H float64
	}
	line struct{ Class, D string }
	tick struct {
		X            float64
		Text, Anchor string
	}
	hit struct {
		X, W float64
		Text string
	}
)

const (
	chartTop    = 16.0
	chartHeight = 122.0
)

// TickY is where the times stand.
func (c *chart) TickY() float64 { return c.Top + c.Height + 16 }

// tally is one point as the charts count.
type tally struct {
	At                       time.Time
	OK, Answer, Unreach, Own uint64
	P50, P99, Lag            time.Duration
}

func (t *tally) by(k kind) uint64 { return [kinds]uint64{t.OK, t.Answer, t.Unreach, t.Own}[k] }

func (t *tally) all() uint64 { return t.OK + t.Answer + t.Unreach + t.Own }

func tallies(points []sink.Point) []tally {
	out := make([]tally, len(points))
	for i := range points {
		p := &points[i]
		var n [kinds]uint64
		for _, o := range pipeline.Outcomes {
			n[kindOf(o)] += p.Outcomes[o]
		}
		out[i] = tally{p.At, n[kindOK], n[kindAnswer], n[kindUnreached], n[kindOwn], p.P50, p.P99, p.Lag}
	}
	return out
}

func newChart(label string, ts []tally, step time.Duration) *chart {
	c := &chart{Label: label, Top: chartTop, Height: chartHeight}
	w := 100 / float64(max(len(ts), 1))
	for i := range ts {
		t := &ts[i]
		text := fmt.Sprintf("%s–%s UTC\n%s attempts", t.At.Format("15:04"), t.At.Add(step).Format("15:04"), count(t.all()))
		for k := range kinds {
			if n := t.by(k); n > 0 {
				text += "\n" + count(n) + " " + kindNames[k]
			}
		}
		if t.P50 > 0 {
			text += "\nmedian " + took(t.P50) + ", p99 " + took(t.P99)
		}
		c.Hits = append(c.Hits, hit{round(float64(i) * w), round(w), text})
	}
	c.ticks(ts, step)
	return c
}

// chartTicks is how many times stand below a chart.
const chartTicks = 4

func (c *chart) ticks(ts []tally, step time.Duration) {
	format := "15:04"
	if time.Duration(len(ts))*step > 25*time.Hour {
		format = "Jan 2 15:04"
	}
	for i := range chartTicks + 1 {
		n := i * len(ts) / chartTicks
		if len(ts) == 0 {
			break
		}
		t := tick{X: round(float64(n) * 100 / float64(len(ts))), Text: ts[0].At.Add(time.Duration(n) * step).Format(format), Anchor: "middle"}
		switch i {
		case 0:
			t.Anchor = "start"
		case chartTicks:
			t.Anchor = "end"
		}
		c.Ticks = append(c.Ticks, t)
	}
}

// attemptsChart stacks the attempts of each step by how they ended.
func attemptsChart(ts []tally, step time.Duration) *chart {
	c := newChart("", ts, step)
	var total [kinds]uint64
	most := uint64(1)
	for i := range ts {
		most = max(most, ts[i].all())
		for k := range kinds {
			total[k] += ts[i].by(k)
		}
	}
	top := nice(float64(most))
	c.rule(1, count(uint64(top)))
	c.rule(.5, "")
	w := 100 / float64(max(len(ts), 1))
	for i := range ts {
		y := c.Top + c.Height
		for k := range kinds {
			n := ts[i].by(k)
			if n == 0 {
				continue
			}
			h := max(float64(n)/top*c.Height, 1) // one failure among many is still seen
			y -= h
			c.Bars = append(c.Bars, bar{kindClasses[k], round(float64(i)*w + w*.08), round(y), round(w * .84), round(h)})
		}
	}
	var said []string
	for k := range kinds {
		c.Legend = append(c.Legend, legend{kindClasses[k], kindNames[k], count(total[k])})
		said = append(said, fmt.Sprintf("%d %s", total[k], kindNames[k]))
	}
	c.Label = "Attempts over time: " + strings.Join(said, ", ")
	return c
}

// latencyChart has two lines over a logarithmic scale, from 0.1 ms to a minute.
func latencyChart(ts []tally, step time.Duration) *chart {
	c := newChart("", ts, step)
	const low, high = -4.0, 1.8 // powers of ten of a second
	at := func(d time.Duration) float64 { return (math.Log10(max(d.Seconds(), 1e-4)) - low) / (high - low) }
	for _, r := range []struct {
		d    time.Duration
		text string
	}{{100 * time.Microsecond, "0.1 ms"}, {time.Millisecond, "1 ms"}, {10 * time.Millisecond, "10 ms"}, {100 * time.Millisecond, "100 ms"}, {time.Second, "1 s"}, {10 * time.Second, "10 s"}} {
		c.rule(at(r.d), r.text)
	}
	var p50, p99 pathBuilder
	var last, lagMost time.Duration
	lastP99 := time.Duration(0)
	for i := range ts {
		x := (float64(i) + .5) * 100 / float64(len(ts))
		if ts[i].P50 <= 0 {
			p50.gap()
			p99.gap()
			continue
		}
		p50.to(x, 100*(1-min(at(ts[i].P50), 1)))
		p99.to(x, 100*(1-min(at(ts[i].P99), 1)))
		last, lastP99, lagMost = ts[i].P50, ts[i].P99, max(lagMost, ts[i].Lag)
	}
	c.Lines = []line{{"p99", p99.String()}, {"p50", p50.String()}}
	c.Legend = []legend{{"k-p50", "median", took(last)}, {"k-p99", "99th percentile", took(lastP99)}, {"", "longest wait for a first attempt", took(lagMost)}}
	c.Label = "Time to the answer: last median " + took(last) + ", last 99th percentile " + took(lastP99)
	return c
}

// rule is a line at a share of the height.
func (c *chart) rule(share float64, text string) {
	y := round(c.Top + c.Height*(1-share))
	c.Rules = append(c.Rules, rule{y, y - 3, text})
}

// pathBuilder makes an SVG path of points; a single one between gaps is a dot.
type pathBuilder struct {
	strings.Builder
	pen bool
}

func (p *pathBuilder) to(x, y float64) {
	op := "L"
	if !p.pen {
		fmt.Fprintf(p, "M%s %sh.01", num(x), num(y))
	}
	fmt.Fprintf(p, "%s%s %s", op, num(x), num(y))
	p.pen = true
}

func (p *pathBuilder) gap() { p.pen = false }

func num(f float64) string { return strconv.FormatFloat(f, 'f', 2, 64) }

func round(f float64) float64 { return math.Round(f*100) / 100 }

// nice is the next of 1, 2, 5, 10, 20, ... that is not below n.
func nice(n float64) float64 {
	scale := math.Pow(10, math.Floor(math.Log10(n)))
	for _, m := range []float64{1, 2, 5, 10} {
		if n <= m*scale {
			return m * scale
		}
	}
	return n
}

// phase is a part of an attempt's time.
type phase struct {
	Class, Name, Text string
	X, W              float64
}

// phases of an attempt, in order; nil where nothing took time.
func phases(a *pipeline.Attempt) []phase {
	if a.Elapsed <= 0 {
		return nil
	}
	connected := a.DNS + a.Connect + a.TLS
	wait := a.Elapsed - connected
	read := time.Duration(0)
	if a.TTFB > 0 { // from the start of the attempt
		wait = max(0, a.TTFB-connected)
		read = max(0, a.Elapsed-max(a.TTFB, connected))
	}
	var out []phase
	x := 0.0
	for _, p := range []struct {
		class, name string
		d           time.Duration
	}{{"ph-dns", "look-up", a.DNS}, {"ph-connect", "connect", a.Connect}, {"ph-tls", "TLS", a.TLS}, {"ph-wait", "wait", wait}, {"ph-read", "read", read}} {
		if p.d <= 0 {
			continue
		}
		w := min(float64(p.d)/float64(a.Elapsed)*100, 100-x)
		out = append(out, phase{p.class, p.name, took(p.d), round(x), round(w)})
		x += w
	}
	return out
}
