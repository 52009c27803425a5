package topology

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/goccy/go-yaml/ast"
)

const (
	maxTrace     = 1 << 16   // steps of a rate trace, numbers of a loss trace
	maxRun       = 1<<31 - 1 // packets in a number of a loss trace
	maxTraceFile = 16 << 20  // bytes
	maxTraces    = 128 << 20 // bytes of all trace files of a topology
	minStep      = time.Millisecond
)

// ParseRateTrace reads a bandwidth trace: lines "LENGTH RATE", as "500ms 20Mbit/s", or, as Mahimahi has them, lines of
// one number each: milliseconds, not falling, at which 1500 bytes may pass. Of the latter, 20 ms become a step. Empty lines, and what follows
// a #, count for nothing. The error is Errors, with their lines.
func ParseRateTrace(data []byte) ([]RateStep, error) {
	t := traceReader{}
	var steps []RateStep
	var m mahimahi
	t.lines(data, func(text string) {
		fields := strings.Fields(text)
		switch number, err := strconv.ParseUint(fields[0], 10, 32); {
		case len(fields) == 1 && err == nil && steps == nil:
			t.bad(m.add(number))
		case m.last > 0 || m.pending > 0:
			t.bad(fmt.Errorf("%s is not a number of milliseconds, as the lines before it", quote(text)))
		default:
			step, err := parseRateStep(strings.Join(fields, " "))
			if err != nil {
				err = fmt.Errorf("%s %w", quote(text), err)
			}
			t.bad(err)
			steps = append(steps, step)
		}
		if len(steps) > maxTrace || len(m.steps) > maxTrace {
			t.fatal(fmt.Errorf("the trace has more than %d steps", maxTrace))
		}
	})
	if len(t.found) == 0 && steps == nil {
		var err error
		if steps, err = m.end(); err != nil {
			t.fatal(err)
		}
	}
	return steps, t.err()
}

// mahimahi turns times of delivery into rates.
type mahimahi struct {
	steps   []RateStep
	bin     uint64 // number of the step that is being counted
	pending uint64 // deliveries in it
	last    uint64 // ms
}

const (
	binLength = 20       // ms
	delivery  = 1500 * 8 // bits
)

// add counts a delivery at the end of a millisecond, counted from 1; what comes at 0 is as at 1.
func (m *mahimahi) add(at uint64) error {
	if at < m.last {
		return fmt.Errorf("%d ms is before the %d ms of the line before it", at, m.last)
	}
	if bin := (max(at, 1) - 1) / binLength; bin > m.bin {
		m.flush(binLength)
		if idle := bin - m.bin - 1; idle > 0 {
			m.flush(idle * binLength)
		}
		m.bin = bin
	}
	m.pending++
	m.last = at
	return nil
}

func (m *mahimahi) flush(length uint64) {
	step := RateStep{time.Duration(length) * time.Millisecond, Rate(m.pending * delivery * 1000 / length)}
	m.pending = 0
	if n := len(m.steps); n > 0 && m.steps[n-1].Rate == step.Rate {
		m.steps[n-1].Length += step.Length
		return
	}
	m.steps = append(m.steps, step)
}

func (m *mahimahi) end() ([]RateStep, error) {
	switch {
	case m.pending == 0:
		return nil, errors.New("the trace is empty")
	case m.last == 0:
		return nil, errors.New("the trace ends at 0 ms; it would begin anew at once, without end")
	}
	m.flush(m.last - m.bin*binLength)
	return m.steps, nil
}

// parseRateStep reads "500ms 20Mbit/s".
func parseRateStep(s string) (step RateStep, err error) {
	length, rate, ok := strings.Cut(s, " ")
	if !ok {
		return step, errors.New(`is not a time and a rate, as "500ms 20Mbit/s"`)
	}
	if step.Length, err = ParseTime(length); err != nil {
		return RateStep{}, fmt.Errorf("is not right: its time %w", err)
	}
	bits, err := parseUnit(rate, rateUnits())
	if err != nil {
		return RateStep{}, fmt.Errorf("is not right: its rate %w", err)
	}
	step.Rate = Rate(bits)
	return step, nil
}

// String is "500ms 20Mbit/s".
func (s RateStep) String() string { return s.Length.String() + " " + s.Rate.String() }

// ParseLossTrace reads the fates of packets: a 0 for each that passes, a 1 for each that is lost. Space between them, and
// what follows a #, counts for nothing. The result is as a Shape has it. The error is Errors, with their lines.
func ParseLossTrace(data []byte) ([]int, error) {
	t := traceReader{}
	var runs []int
	t.lines(data, func(text string) {
		for i := range len(text) {
			switch c := text[i]; {
			case c == ' ' || c == '\t':
				continue
			case c != '0' && c != '1':
				t.bad(fmt.Errorf("%s has something other than 0 and 1", quote(text)))
				return
			case len(runs) == 0:
				runs = append(runs, 0)
				fallthrough
			default:
				if lost := c == '1'; lost != (len(runs)%2 == 0) {
					runs = append(runs, 0)
				}
				runs[len(runs)-1]++
			}
			if len(runs) > maxTrace {
				t.fatal(fmt.Errorf("the trace goes from passing to losing and back more than %d times", maxTrace/2))
				return
			}
		}
	})
	if len(t.found) == 0 && runs == nil {
		t.fatal(errors.New("the trace is empty"))
	}
	return runs, t.err()
}

// ParsePathTrace reads where a station is when: lines "AT DISTANCE" or "AT DISTANCE WALLS", as "30s 20m 2", each later than the
// one before it. Empty lines, and what follows a #, count for nothing. The error is Errors, with their lines.
func ParsePathTrace(data []byte) ([]Waypoint, error) {
	t := traceReader{}
	var path []Waypoint
	t.lines(data, func(text string) {
		w, err := parseWaypoint(strings.Fields(text))
		if err == nil && len(path) > 0 && w.At <= path[len(path)-1].At {
			err = fmt.Errorf("is not after the %v of the point before it", path[len(path)-1].At)
		}
		if err != nil {
			t.bad(fmt.Errorf("%s %w", quote(text), err))
			return
		}
		if path = append(path, w); len(path) > maxPath {
			t.fatal(fmt.Errorf("the path has more than %d points", maxPath))
		}
	})
	if len(t.found) == 0 && path == nil {
		t.fatal(errors.New("the path is empty"))
	}
	return path, t.err()
}

func parseWaypoint(fields []string) (w Waypoint, err error) {
	if len(fields) < 2 || len(fields) > 3 {
		return w, errors.New(`is not a time, a distance and perhaps walls, as "30s 20m 2"`)
	}
	if w.At, err = ParseTime(fields[0]); err != nil {
		return w, fmt.Errorf("is not right: its time %w", err)
	}
	if w.Distance, err = ParseDistance(fields[1]); err != nil {
		return w, fmt.Errorf("is not right: its distance %w", err)
	}
	if len(fields) == 3 {
		n, err := ParseCount(fields[2])
		if err == nil && n > maxWalls {
			err = fmt.Errorf("are more than %d", maxWalls)
		}
		if err != nil {
			return w, fmt.Errorf("is not right: its walls %w", err)
		}
		w.Walls = int(n)
	}
	return w, nil
}

// traceReader goes through the lines of a trace and keeps what is wrong with them.
type traceReader struct {
	problems
	line int
	over bool
}

func (t *traceReader) lines(data []byte, visit func(text string)) {
	for text := range strings.Lines(strings.TrimPrefix(string(data), "\ufeff")) {
		t.line++
		text, _, _ = strings.Cut(text, "#")
		if text = strings.TrimSpace(text); text != "" {
			visit(text)
		}
		if t.over || t.full {
			return
		}
	}
	t.line = max(t.line, 1)
}

// bad reports a mistake in the line, if err is one.
func (t *traceReader) bad(err error) {
	if err == nil {
		return
	}
	if t.add(BadValue, "", "%v", err); !t.full {
		t.found[len(t.found)-1].Line = t.line
	}
}

func (t *traceReader) fatal(err error) {
	t.bad(err)
	t.over = true
}

func (t *traceReader) err() error {
	if len(t.found) == 0 {
		return nil
	}
	return t.found
}

// errNoFiles says that files are not read here.
var errNoFiles = errors.New("a file is read with the topology only; give its content in its place")

// files reads the trace files of a topology. The zero value reads none.
type files struct {
	dir    string
	may    bool
	left   int64          // bytes that may still be read
	stdin  io.Reader      // what the name "-" means, once; nil: a file
	traces map[string]any // what was read, by form and name
}

// read returns what is in a regular file. Anything else might never end.
func (f *files) read(name string) ([]byte, error) {
	if !f.may {
		return nil, errNoFiles
	}
	if name == "-" && f.stdin != nil {
		data, err := io.ReadAll(io.LimitReader(f.stdin, maxTraceFile+1))
		f.stdin = strings.NewReader("")
		if err == nil && len(data) > maxTraceFile {
			err = fmt.Errorf("has more than %d bytes", maxTraceFile)
		}
		return data, err
	}
	if !filepath.IsAbs(name) {
		name = filepath.Join(f.dir, name)
	}
	file, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // of a FIFO, opening it would wait
	if err != nil {
		return nil, reason(err)
	}
	defer file.Close()
	info, err := file.Stat()
	switch most := min(maxTraceFile, f.left); {
	case err != nil:
		return nil, reason(err)
	case !info.Mode().IsRegular():
		return nil, errors.New("is not a regular file")
	case info.Size() > most && most < maxTraceFile:
		return nil, fmt.Errorf("the trace files of the topology have more than %d bytes", maxTraces)
	case info.Size() > most:
		return nil, fmt.Errorf("has %d bytes, more than %d", info.Size(), maxTraceFile)
	default:
		data, err := io.ReadAll(io.LimitReader(file, most))
		f.left -= int64(len(data))
		return data, reason(err)
	}
}

// reason is what went wrong, without the path.
func reason(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// traceForm is a list of entries, or {file: NAME} for a file with them, that parse reads. It writes the entries, so that a
// topology that was read needs the file no more.
func traceForm[V any](what string, entry form[V], most int, parse func([]byte) ([]V, error)) form[[]V] {
	entries := list(what, entry, most)
	file := object(what, need(key("file", "A file with the trace. Its place is relative to this file.", text[string](ofType("string")), func(name *string) *string { return name })))
	return form[[]V]{
		read: func(d *decoder, n ast.Node, element string) ([]V, bool) {
			switch n.(type) {
			case *ast.MappingNode, *ast.MappingValueNode:
			default:
				return entries.read(d, n, element)
			}
			name, ok := file.read(d, n, element)
			if !ok || name == "" {
				return nil, false
			}
			cached := what + " " + name
			if vs, ok := d.files.traces[cached].([]V); ok {
				return vs, true
			}
			data, err := d.files.read(name)
			var vs []V
			if err == nil {
				vs, err = parse(data)
			}
			if err != nil {
				d.traceErrors(element+".file", what, name, err)
				return nil, false
			}
			if d.files.traces == nil {
				d.files.traces = map[string]any{}
			}
			d.files.traces[cached] = vs
			return vs, true
		},
		write:  entries.write,
		zero:   entries.zero,
		schema: either(entries.schema, file.schema),
	}
}

// traceErrors reports what is wrong with a trace file at the place where the topology names it.
func (d *decoder) traceErrors(element, what, name string, err error) {
	var errs Errors
	if !errors.As(err, &errs) {
		d.add(BadValue, element, "%s: %s: %v", what, quote(name), err)
		return
	}
	for _, e := range errs {
		d.add(BadValue, element, "%s: %s:%d: %s", what, clipText(name), e.Line, e.Message)
	}
}

// clipText shows a file's name in front of a line number.
func clipText(name string) string {
	if len(name) > 80 || !plain(name) {
		return quote(name)
	}
	return name
}
