package report

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode"
)

// num makes 0 of what is no number.
func num(f float64) float64 {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return 0
	}
	return f
}

// rounded is f with the three digits that are printed of it: they decide on its size, or 999.6 were "1000" and not "1.00" of
// the next unit.
func rounded(f float64) float64 {
	if f = num(f); f == 0 {
		return 0
	}
	last := math.Pow(10, math.Floor(math.Log10(math.Abs(f)))-2)
	return math.Round(f/last) * last
}

// significant prints f with three digits, and never with an exponent.
func significant(f float64) string {
	f = num(f)
	switch a := math.Abs(rounded(f)); {
	case a == 0:
		return "0"
	case a < 0.001:
		return "< 0.001"
	case a < 1:
		return strconv.FormatFloat(f, 'f', 3, 64)
	case a < 10:
		return strconv.FormatFloat(f, 'f', 2, 64)
	case a < 100:
		return strconv.FormatFloat(f, 'f', 1, 64)
	}
	return strconv.FormatFloat(f, 'f', 0, 64)
}

// unit is a scale with its name.
type unit struct {
	name  string
	scale float64
}

// rateUnit fits values up to most bit/s.
func rateUnit(most float64) unit {
	switch {
	case most >= 1e9:
		return unit{"Gbit/s", 1e9}
	case most >= 1e6:
		return unit{"Mbit/s", 1e6}
	case most >= 1e3:
		return unit{"kbit/s", 1e3}
	}
	return unit{"bit/s", 1}
}

// timeUnit fits values up to most milliseconds.
func timeUnit(most float64) unit {
	switch {
	case most >= 1e3:
		return unit{"s", 1e3}
	case most >= 1:
		return unit{"ms", 1}
	}
	return unit{"µs", 1e-3}
}

func (u unit) format(f float64) string { return significant(num(f)/u.scale) + " " + u.name }

// Rate is f bit/s in the unit that suits it.
func Rate(f float64) string { return rateUnit(rounded(f)).format(f) }

func millis(f float64) string { return timeUnit(rounded(f)).format(f) }
func micros(f float64) string { return millis(num(f) / 1e3) }

func percent(share float64) string { return significant(100*num(share)) + "%" }

// moment is a time after the start of the run.
func moment(ms float64) string { return strconv.FormatFloat(num(ms)/1e3, 'f', 3, 64) + " s" }

// narrow is a space that no locale takes for a decimal sign.
const narrow = '\u202f'

// count groups digits by thousands.
func count(n uint64) string {
	s := strconv.FormatUint(n, 10)
	var b strings.Builder
	for i, c := range s {
		if i > 0 && (len(s)-i)%3 == 0 {
			b.WriteRune(narrow)
		}
		b.WriteRune(c)
	}
	return b.String()
}

func size(n uint64) string {
	switch near := rounded(float64(n)); {
	case n < 10_000:
		return count(n) + " B"
	case near < 10e6:
		return significant(float64(n)/1e3) + " kB"
	case near < 10e9:
		return significant(float64(n)/1e6) + " MB"
	}
	return significant(float64(n)/1e9) + " GB"
}

// plain takes out what a terminal would obey instead of show.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) && r != narrow {
			return '\uFFFD'
		}
		return r
	}, s)
}

// shorten cuts s to at most n runes, in the middle, where names of machines differ least.
func shorten(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	head := (n - 1 + 1) / 2
	return string(r[:head]) + "…" + string(r[len(r)-(n-1-head):])
}

// shell quotes a command so that a POSIX shell runs it as it was.
func shell(args []string) string {
	out := make([]string, len(args))
	for i, a := range args {
		if a != "" && strings.Trim(a, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./:,@%") == "" {
			out[i] = a
		} else {
			out[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	return strings.Join(out, " ")
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
