package topology

import (
	"io"
	"slices"
	"strings"
)

// Change is what some keys of a link are to become, as "pqlab link set" takes it. The zero value changes nothing.
type Change struct {
	keys []string
	sets []func(*changed)
}

// changed is what a Change may change.
type changed struct {
	shape   Shape
	station Station
}

func changedFields() []field[changed] {
	return append(shapeFields(func(c *changed) *Shape { return &c.shape }), stationFields(func(c *changed) *Station { return &c.station })...)
}

// Clear is the value that takes back what a key gave.
const Clear = "none"

// ShapeKeys are the keys that a Change may have of a link's shape.
func ShapeKeys() []string { return fieldNames(shapeFields(func(s *Shape) *Shape { return s })) }

// StationKeys are those that it may have of a Wi-Fi link's station.
func StationKeys() []string { return fieldNames(stationFields(func(s *Station) *Station { return s })) }

// ParseChange reads "KEY=VALUE", with the keys and values that a link has in YAML, and those that its wifi has: "delay=20ms",
// "gilbert_elliott={p: 1%, r: 25%}", "distance=20m". The value Clear leaves the key out. No files are read. The error is Errors.
func ParseChange(args []string) (Change, error) {
	c, _, err := parseChange(args, files{})
	return c, err
}

// InlineChange gives arguments for ParseChange that have in place of files what is in them: "rate_trace={file: down.trace}",
// relative to the working directory, "loss_trace={file: -}" from stdin. What is wrong with them is Errors, as of ParseChange.
func InlineChange(args []string, stdin io.Reader) ([]string, error) {
	_, inline, err := parseChange(args, files{may: true, left: maxTraces, stdin: stdin})
	return inline, err
}

// parseChange gives the arguments back with what files have in them.
func parseChange(args []string, from files) (c Change, inline []string, err error) {
	fields := changedFields()
	names := fieldNames(fields)
	d := &decoder{at: map[string]Position{}, files: from}
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		i := slices.Index(names, name)
		switch {
		case !ok:
			d.add(BadSyntax, "", "%s is not KEY=VALUE, as delay=20ms", quote(arg))
			continue
		case i < 0:
			d.add(BadKey, "", "there is no key %s%s; there are %s", quote(name), DidYouMean(name, names), commas(names))
			continue
		case slices.Contains(c.keys, name):
			d.add(Duplicate, "", "key %s is given twice", name)
			continue
		case value == "":
			d.add(BadValue, name, "%s: has no value; %s takes it back", name, Clear)
			continue
		}
		c.keys = append(c.keys, name)
		var read changed
		if value != Clear {
			before, opened := len(d.found), len(d.files.traces)
			if body, ok := d.parse([]byte(value)); ok {
				fields[i].read(d, body, name, &read)
			} else {
				d.inKey(name, before)
			}
			if len(d.found) > before {
				continue
			}
			if len(d.files.traces) > opened {
				e := encoder{depth: flowDepth}
				if fields[i].write(&e, &read); e.b.Len() > maxInput {
					d.add(BadValue, name, "%s: with its trace written out, it has %d bytes, more than %d", name, e.b.Len(), maxInput)
					continue
				}
				arg = name + "=" + e.b.String()
			}
		}
		inline = append(inline, arg)
		c.sets = append(c.sets, func(to *changed) { fields[i].copy(to, &read) })
	}
	if len(args) == 0 {
		d.add(Missing, "", "nothing is to change; give KEY=VALUE, as delay=20ms")
	}
	if len(d.found) > 0 {
		return Change{}, nil, d.found
	}
	return c, inline, nil
}

// inKey says of mistakes that were found in a file that the value of this key is the file.
func (d *decoder) inKey(name string, since int) {
	for i := range d.found[since:] {
		e := &d.found[since+i]
		e.Element, e.Message = name, name+": its value is not YAML: "+e.Message
	}
}

// Apply gives the shape that a direction of the link has after the change, and Errors if no link can have it.
func (c Change) Apply(link PlannedLink, now Shape) (Shape, error) {
	// What the link itself gives is added by checkShape.
	now.Delay -= link.propagation()
	if slot := link.slot(); slot > 0 && now.Rate == slot {
		now.Rate = 0
	}
	next := c.of(changed{shape: now}).shape
	var p problems
	p.checkShape(&link.Link, &next, func(key string) string { return key }, "link "+link.Name)
	if len(p.found) > 0 {
		return Shape{}, p.found
	}
	next.Table, next.Outages = slices.Clone(next.Table), slices.Clone(next.Outages)
	return next, nil
}

// MovesStation says whether the change has any of StationKeys. Those hold for both directions of a link.
func (c Change) MovesStation() bool {
	return slices.ContainsFunc(c.keys, func(key string) bool { return slices.Contains(StationKeys(), key) })
}

// ApplyStation gives the station that the link has after the change, and Errors if none can be so, or the link has no airtime.
func (c Change) ApplyStation(link PlannedLink, now Station) (Station, error) {
	var p problems
	at, what := func(key string) string { return key }, "link "+link.Name
	if link.Cell == nil {
		p.add(BadStructure, "", "%s: has no airtime, and so no station that has %s; it would with wifi: {profile: …}", what, commas(StationKeys()))
		return Station{}, p.found
	}
	next := c.of(changed{station: now}).station.clone()
	if p.checkRadio(&next, link.Cell.Width, at, what); len(p.found) > 0 {
		return Station{}, p.found
	}
	return next, nil
}

func (c Change) of(now changed) changed {
	for _, set := range c.sets {
		set(&now)
	}
	return now
}
