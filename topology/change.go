package topology

import (
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
// "gilbert_elliott={p: 1%, r: 25%}", "distance=20m". The value Clear leaves the key out. The error is Errors.
func ParseChange(args []string) (Change, error) {
	var c Change
	fields := changedFields()
	names := fieldNames(fields)
	d := &decoder{at: map[string]Position{}}
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		i := slices.Index(names, name)
		switch {
		case !ok:
			d.add(BadSyntax, "", "%s is not KEY=VALUE, as delay=20ms", quote(arg))
			continue
		case i < 0:
			d.add(BadKey, "", "there is no key %s%s; there are %s", quote(name), didYouMean(name, names), commas(names))
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
			before := len(d.found)
			if body, ok := d.parse([]byte(value)); ok {
				fields[i].read(d, body, name, &read)
			}
			if len(d.found) > before {
				continue
			}
		}
		c.sets = append(c.sets, func(to *changed) { fields[i].copy(to, &read) })
	}
	if len(args) == 0 {
		d.add(Missing, "", "nothing is to change; give KEY=VALUE, as delay=20ms")
	}
	if len(d.found) > 0 {
		return Change{}, d.found
	}
	return c, nil
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
