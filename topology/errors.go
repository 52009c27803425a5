package topology

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
)

// ErrorKind says what sort of mistake an Error is about. Callers and tests decide on it, never on the message.
type ErrorKind string

const (
	BadSyntax    ErrorKind = "syntax"    // not YAML, or YAML that a topology has no use for (anchors, tags, several documents)
	BadKey       ErrorKind = "key"       // a key that does not exist here
	Missing      ErrorKind = "missing"   // something that must be given
	BadValue     ErrorKind = "value"     // a value of the wrong type, unit or size
	Duplicate    ErrorKind = "duplicate" // a key or name given twice
	UnknownName  ErrorKind = "unknown"   // a name of something that does not exist
	BadStructure ErrorKind = "structure" // nodes and links that cannot be joined so
	BadAddress   ErrorKind = "address"   // addresses or subnets that conflict, overlap or lie outside
	NoPath       ErrorKind = "path"      // ends that cannot reach one another, or only in a loop
)

// Error is one mistake in a topology.
type Error struct {
	File         string // YAML file, or Go source file of the builder's call; may be empty
	Line, Column int    // from 1; 0 where there is none (a Topology made by hand; Go sources have no column)
	Kind         ErrorKind
	Element      string // what it is about, as "links[2].a.node"; empty for the topology as a whole
	Message      string
}

func (e Error) Error() string {
	if at := (Position{e.File, e.Line, e.Column}).String(); at != "" {
		return at + ": " + e.Message
	}
	return e.Message
}

// Errors are all mistakes found in a topology, by position where they have one.
type Errors []Error

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.As find the first Error.
func (e Errors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, err := range e {
		errs[i] = err
	}
	return errs
}

// maxErrors is how many mistakes are reported: more help nobody, and a hostile file could ask for millions.
const maxErrors = 100

// problems collects mistakes.
type problems struct {
	found Errors
	full  bool
}

// add reports a mistake about element. It formats nothing once the list is full.
func (p *problems) add(kind ErrorKind, element, format string, args ...any) {
	if len(p.found) == maxErrors {
		p.full = true
		return
	}
	p.found = append(p.found, Error{Kind: kind, Element: element, Message: fmt.Sprintf(format, args...)})
}

// Position is where an element was written, as an Error has it. The zero value is nowhere.
type Position struct {
	File         string
	Line, Column int
}

// String is "lab.yaml:3:12", "" of the zero value.
func (p Position) String() string {
	switch {
	case p.Line == 0:
		return ""
	case p.Column == 0:
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// positionOf is that of an element, or of the nearest element around it.
func positionOf(element string, at map[string]Position, fallback Position) Position {
	for ; element != ""; element = parent(element) {
		if p, ok := at[element]; ok {
			return p
		}
	}
	return fallback
}

// linksAt is where so many links are.
func linksAt(links int, at map[string]Position) []LinkPosition {
	all := make([]LinkPosition, links)
	for i := range all {
		element := fmt.Sprintf("links[%d]", i)
		link := positionOf(element, at, Position{})
		all[i] = LinkPosition{link, link}
		for _, key := range []string{".rate", ".rate_trace", ".gen"} {
			if p, ok := at[element+key]; ok {
				all[i].Rate = p
				break
			}
		}
	}
	return all
}

// locate gives every mistake without a position that of its element, or of the nearest element around it, and sorts
// them. Mistakes that it cannot place go to the fallback position.
func (e Errors) locate(at map[string]Position, fallback Position) Errors {
	for i := range e {
		if e[i].Line != 0 {
			continue
		}
		pos := positionOf(e[i].Element, at, fallback)
		e[i].File, e[i].Line, e[i].Column = pos.File, pos.Line, pos.Column
	}
	slices.SortStableFunc(e, func(a, b Error) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return e
}

// parent of "links[2].a.node" is "links[2].a", then "links[2]", then "links".
func parent(element string) string {
	return element[:max(0, strings.LastIndexAny(element, ".["))]
}

// leastPrefix is how much of a known name is no accident, in bytes.
const leastPrefix = 3

// DidYouMean returns ` (did you mean "x"?)` for the shortest known name that name begins, else for the one nearest to it, or
// nothing where none is near. It suggests no name that may not be used, such as one that only looks the same.
func DidYouMean(name string, known []string) string {
	if len(name) > 64 {
		return ""
	}
	best, distance := "", max(1, (len(name)+2)/3)+1
	for _, k := range known {
		if !plain(k) {
			continue
		}
		if len(name) >= leastPrefix && strings.HasPrefix(k, name) && (!strings.HasPrefix(best, name) || len(k) < len(best)) {
			best, distance = k, 0
			continue
		}
		if d := len(k) - len(name); d >= distance || -d >= distance {
			continue
		}
		if d := levenshtein.Distance(name, k, nil); d < distance {
			best, distance = k, d
		}
	}
	if best == "" || len(name) == 1 && len(best) == 1 {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", best)
}

// OrAny is what to add to the complaint that there is no such name: DidYouMean, or what there is, if that is not much.
func OrAny(name string, known []string) string {
	const most = 20
	if near := DidYouMean(name, known); near != "" {
		return near
	}
	switch n := len(known); {
	case n == 0:
		return "; there is none"
	case n > most:
		return fmt.Sprintf("; there are %s and %d more", strings.Join(known[:most], ", "), n-most)
	default:
		return "; there is " + strings.Join(known, ", ")
	}
}

func plain(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}

// asErrors returns the Errors in err; err must hold nothing else.
func asErrors(err error) Errors {
	var e Errors
	errors.As(err, &e)
	return e
}
