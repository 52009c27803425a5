package topology

import (
	"slices"
	"strings"
)

// Change is what some keys of a link's shape are to become, as "pqlab link set" takes it. The zero value changes nothing.
type Change struct {
	keys []string
	sets []func(*Shape)
}

// Clear is the value that takes back what a key gave.
const Clear = "none"

// ShapeKeys are the keys that a Change may have.
func ShapeKeys() []string { return fieldNames(shapeFields(func(s *Shape) *Shape { return s })) }

// ParseChange reads "KEY=VALUE", with the keys and values that a link has in YAML: "delay=20ms",
// "gilbert_elliott={p: 1%, r: 25%}". The value Clear leaves the key out. The error is Errors.
func ParseChange(args []string) (Change, error) {
	var c Change
	fields := shapeFields(func(s *Shape) *Shape { return s })
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
		var read Shape
		if value != Clear {
			before := len(d.found)
			if body, ok := d.parse([]byte(value)); ok {
				fields[i].read(d, body, name, &read)
			}
			if len(d.found) > before {
				continue
			}
		}
		c.sets = append(c.sets, func(s *Shape) { fields[i].copy(s, &read) })
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
	for _, set := range c.sets {
		set(&now)
	}
	var p problems
	p.checkShape(&link.Link, &now, func(key string) string { return key }, "link "+link.Name)
	if len(p.found) > 0 {
		return Shape{}, p.found
	}
	now.Table, now.Outages = slices.Clone(now.Table), slices.Clone(now.Outages)
	return now, nil
}
