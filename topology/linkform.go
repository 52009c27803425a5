package topology

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/invopop/jsonschema"
)

// optional is a form of something that may be absent as a whole.
func optional[V any](f form[V]) form[*V] {
	return form[*V]{
		read: func(d *decoder, n ast.Node, element string) (*V, bool) {
			v, ok := f.read(d, n, element)
			return &v, ok
		},
		write:  func(e *encoder, v *V) { f.write(e, *v) },
		zero:   func(v *V) bool { return v == nil },
		schema: f.schema,
	}
}

func stepForm() form[RateStep] {
	return scalar(parseRateStep, RateStep.String, pattern(`^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+ [0-9]+(\.[0-9]+)? ?([kMGT]?bit/s)$`, "500ms 20Mbit/s"))
}

// wholeForm is a whole number, which may be 0.
func wholeForm() form[int] {
	return scalar(func(s string) (int, error) {
		n, err := ParseCount(s)
		if err == nil && n > maxRun {
			err = fmt.Errorf("is larger than %d", maxRun)
		}
		return int(n), err
	}, strconv.Itoa, atLeast(0))
}

func queueForm() form[Queue] {
	kind := text[string](enum([]string{DropTail, CoDel}))
	return endForm(kind, object("queue",
		key("kind", "Default drop-tail.", kind, func(q *Queue) *string { return &q.Kind }),
		key("bytes", "How much it holds, of Ethernet frames.", bytesForm(), func(q *Queue) *uint64 { return &q.Bytes }),
		key("time", "How much it holds, as time at the rate.", timeForm(), func(q *Queue) *time.Duration { return &q.Time }),
		key("target", "Of codel; default 5ms.", timeForm(), func(q *Queue) *time.Duration { return &q.Target }),
		key("interval", "Of codel; default 100ms.", timeForm(), func(q *Queue) *time.Duration { return &q.Interval }),
	), func(q *Queue) *string { return &q.Kind }, func(q Queue) bool { return q == Queue{Kind: q.Kind} })
}

func outageForm() form[Outage] {
	return object("outage",
		key("start", "After the link came up, or was changed; default 0s.", timeForm(), func(o *Outage) *time.Duration { return &o.Start }),
		need(key("length", "How long it lasts.", timeForm(), func(o *Outage) *time.Duration { return &o.Length })),
		key("every", "From one start to the next; default: once.", timeForm(), func(o *Outage) *time.Duration { return &o.Every }),
	)
}

func stationForm() form[Station] {
	profile := text[string](enum(Radios()))
	return endForm(profile, object("wifi", append([]field[Station]{
		need(key("profile", "What radio it is.", profile, func(s *Station) *string { return &s.Profile })),
	}, stationFields(func(s *Station) *Station { return s })...)...), func(s *Station) *string { return &s.Profile }, func(s Station) bool {
		return s.Distance == 0 && s.Walls == 0 && s.Path == nil && s.MCS == nil && s.MaxAMPDU == 0
	})
}

// stationFields are the keys that a T has for what may change of a Station: all but its radio.
func stationFields[T any](at func(*T) *Station) []field[T] {
	waypoint := object("waypoint",
		need(key("at", "After the link came up.", timeForm(), func(w *Waypoint) *time.Duration { return &w.At })),
		need(key("distance", "To the access point.", distanceForm(), func(w *Waypoint) *float64 { return &w.Distance })),
		key("walls", "Between it and the access point; default 0.", wholeForm(), func(w *Waypoint) *int { return &w.Walls }),
	)
	return []field[T]{
		key("distance", "To the access point; default 5m.", distanceForm(), func(t *T) *float64 { return &at(t).Distance }),
		key("walls", "Between it and the access point; default 0.", wholeForm(), func(t *T) *int { return &at(t).Walls }),
		key("path", "In place of distance and walls: where it is when.", traceForm("path", waypoint, maxPath, ParsePathTrace), func(t *T) *[]Waypoint { return &at(t).Path }),
		key("mcs", "Of the data frames; auto, the default: rate control chooses.", automatic(mcsForm()), func(t *T) **int { return &at(t).MCS }),
		key("max_ampdu", "MPDUs in an A-MPDU, 1 to 64; default: as many as the radio can.", intForm(), func(t *T) *int { return &at(t).MaxAMPDU }),
	}
}

// automatic is a form of something that is not given where it says auto.
func automatic[V any](f form[V]) form[*V] {
	given := optional(f)
	return form[*V]{
		read: func(d *decoder, n ast.Node, element string) (*V, bool) {
			if isScalar(n) {
				if s, ok := d.scalar(n, element); !ok || s == auto {
					return nil, ok
				}
			}
			return given.read(d, n, element)
		},
		write:  given.write,
		zero:   given.zero,
		schema: either(f.schema, enum([]string{auto})),
	}
}

const auto = "auto"

func cellForm() form[Cell] {
	interferer := object("interferer",
		need(key("duty", "Share of the time in which it sends.", shareForm(), func(i *Interferer) *float64 { return &i.Duty })),
		need(key("power", "As received in the cell.", powerForm(), func(i *Interferer) *float64 { return &i.Power })),
	)
	return object("wifi",
		key("width", "Of the channel; default 80MHz.", widthForm(), func(c *Cell) *int { return &c.Width }),
		key("exponent", "Of the path loss; default: that of the model.", numberForm(), func(c *Cell) *float64 { return &c.Exponent }),
		key("interferers", "Other transmitters in the channel, which defer to nobody.", list("interferers", interferer, maxInterferers), func(c *Cell) *[]Interferer { return &c.Interferers }),
	)
}

// distanceForm is a length that a station can be away from its access point.
func distanceForm() form[float64] { return scalar(ParseDistance, formatLength, lengthForm().schema) }

func mcsForm() form[int] {
	parse := func(s string) (int, error) {
		n, err := ParseCount(s)
		if err == nil && n > uint64(maxMCS) {
			err = fmt.Errorf("is larger than %d", maxMCS)
		}
		return int(n), err
	}
	return scalar(parse, strconv.Itoa, func() *jsonschema.Schema {
		return &jsonschema.Schema{Type: "integer", Minimum: jsonNumber(0), Maximum: jsonNumber(maxMCS)}
	})
}

func widthForm() form[int] {
	var names []string
	for _, w := range widths() {
		names = append(names, strconv.Itoa(w)+"MHz")
	}
	parse := func(s string) (int, error) {
		for i, name := range names {
			if s == name {
				return widths()[i], nil
			}
		}
		return 0, fmt.Errorf("is none of %s", commas(names))
	}
	return scalar(parse, func(w int) string { return strconv.Itoa(w) + "MHz" }, enum(names))
}

// withUnit is a decimal number directly before its unit.
func withUnit(unit, example string, parse func(string) (float64, error), sign string) form[float64] {
	return scalar(func(s string) (float64, error) {
		number, ok := strings.CutSuffix(s, unit)
		if !ok {
			return 0, fmt.Errorf("has no unit; give it in %s, as %s", unit, example)
		}
		return parse(number)
	}, func(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) + unit }, pattern(`^`+sign+`[0-9]+(\.[0-9]+)?`+unit+`$`, example))
}

func powerForm() form[float64] { return withUnit("dBm", "-70dBm", parseNumber, "-?") }

func attenuationForm() form[float64] {
	return withUnit("dB/km", "0.2dB/km", func(s string) (float64, error) {
		v, err := parseFloat(s, "")
		if err == nil && v == 0 {
			err = errors.New("is nothing, which no fibre has; leave it out for the default")
		}
		return v, err
	}, "")
}
