package report

import (
	"encoding/xml"
	"fmt"
	"io"
)

// The elements and attributes of JUnit reports that CI systems read, in the order of the Jenkins schema (junit-10.xsd).
type junitSuites struct {
	XMLName  xml.Name     `xml:"testsuites"`
	Name     string       `xml:"name,attr"`
	Tests    int          `xml:"tests,attr"`
	Failures int          `xml:"failures,attr"`
	Errors   int          `xml:"errors,attr"`
	Time     string       `xml:"time,attr"`
	Suites   []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name       string          `xml:"name,attr"`
	Tests      int             `xml:"tests,attr"`
	Failures   int             `xml:"failures,attr"`
	Errors     int             `xml:"errors,attr"`
	Skipped    int             `xml:"skipped,attr"`
	Time       string          `xml:"time,attr"`
	Timestamp  string          `xml:"timestamp,attr"`
	Hostname   string          `xml:"hostname,attr"`
	Properties []junitProperty `xml:"properties>property"`
	Cases      []junitCase     `xml:"testcase"`
	Err        string          `xml:"system-err,omitempty"`
}

type junitProperty struct {
	Name  string `xml:"name,attr"`
	Value string `xml:"value,attr"`
}

type junitCase struct {
	Class   string        `xml:"classname,attr"`
	Name    string        `xml:"name,attr"`
	Time    string        `xml:"time,attr"`
	Failure *junitFailure `xml:"failure"`
	Out     string        `xml:"system-out,omitempty"`
}

type junitFailure struct {
	Type    string `xml:"type,attr"`
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// WriteJUnit writes the checks as the test cases of one suite, named after the topology.
func (r Result) WriteJUnit(w io.Writer) error {
	seconds := fmt.Sprintf("%.3f", num(r.Duration)/1e3)
	suite := junitSuite{
		Name: "pqlab " + r.Topology, Tests: len(r.Checks), Failures: r.failures(), Time: seconds,
		// The schema has no time zone.
		Timestamp: r.Started.UTC().Format("2006-01-02T15:04:05"), Hostname: "localhost",
		Properties: []junitProperty{
			{"topology", r.Topology}, {"seed", fmt.Sprint(r.Seed)}, {"kernel", r.Kernel}, {"dataplane", r.Dataplane},
			{"shaper", r.Shaper}, {"version", r.Version}, {"command", shell(r.Command)},
		},
	}
	for _, warning := range r.Warnings {
		suite.Err += warning + "\n"
	}
	for _, c := range r.Checks {
		tc := junitCase{Class: "pqlab." + r.Topology, Name: c.Name, Time: "0"}
		if c.OK {
			tc.Out = c.Detail
		} else {
			tc.Failure = &junitFailure{Type: "check", Message: c.Detail, Text: c.Detail}
		}
		suite.Cases = append(suite.Cases, tc)
	}
	all := junitSuites{
		Name: suite.Name, Tests: suite.Tests, Failures: suite.Failures, Time: seconds, Suites: []junitSuite{suite},
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return fmt.Errorf("report as JUnit: %w", err)
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(all); err != nil {
		return fmt.Errorf("report as JUnit: %w", err)
	}
	_, err := io.WriteString(w, "\n")
	return err
}
