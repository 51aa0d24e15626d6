#include "engine/plan/csv_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace trireme {
namespace {

using ::testing::HasSubstr;

std::string fault_of(const std::string& text) {
  const auto table = CsvTable::parse(text, "t.csv", {"name", "rate"});
  return table.ok() ? "none" : std::string(table.status().message());
}

TEST(CsvTableTest, ReadsQuotedFieldsRemarksAndAnyOrderOfColumns) {
  const auto table = CsvTable::parse(
      "\xef\xbb\xbf# a remark, with a comma\r\nrate,note, name \r\n1.5,\"a, \"\"b\"\"\nc\",x\r\n\r\n2,,y",
      "t.csv", {"name", "rate"});
  ASSERT_TRUE(table.ok()) << table.status();
  ASSERT_EQ(table->num_rows(), 2u);
  EXPECT_EQ(table->text(0, "name"), "x");
  EXPECT_EQ(table->text(0, "note"), "a, \"b\"\nc");
  EXPECT_EQ(table->text(1, "note"), "");
  EXPECT_EQ(table->text(1, "absent"), "");
  EXPECT_EQ(table->line(0), 3);
  EXPECT_EQ(table->line(1), 6);
}

TEST(CsvTableTest, NamesTheLineThatIsWrong) {
  EXPECT_EQ(fault_of("name,rate\na,1\nb\n"), "t.csv:3: got 1 fields, wanted the header's 2");
  EXPECT_EQ(fault_of("name,rate\na,\"1\nb,2\n"), "t.csv:2: a quote that is opened here and never closed");
  EXPECT_EQ(fault_of("name,rate\na,1\"\n"),
            "t.csv:2: a quote in the middle of a field; quote the whole field");
  EXPECT_EQ(fault_of("name,rate\n\"a\"b,1\n"), "t.csv:2: text after a closing quote");
  EXPECT_EQ(fault_of(std::string("name,rate\na\0,1\n", 14)), "t.csv:2: a control character in a field");
  EXPECT_THAT(fault_of("name,rate,name\na,1,2\n"), HasSubstr("t.csv:1: header: got 'name'"));
  EXPECT_THAT(fault_of("name,speed\na,1\n"), HasSubstr("t.csv:1: header: column 'rate' is missing"));
  EXPECT_EQ(fault_of("name,rate\n"), "t.csv: no row below the header");
  EXPECT_EQ(fault_of(""), "t.csv: no row below the header");
}

TEST(CsvRowTest, NamesTheColumnAndKeepsTheFirstFault) {
  const auto table = CsvTable::parse("name,rate,count,yes\n,x,1.5,maybe\nb,nan,1,true\nc,,7,\n", "t.csv", {});
  ASSERT_TRUE(table.ok());
  CsvRow first(*table, 0);
  first.number("rate", 0, 10, 1.0);
  first.integer("count", 0, 10, 0);
  EXPECT_EQ(first.status().message(),
            "t.csv:2: column rate: got 'x', wanted a number from 0 to 10, or nothing where it is not known");
  CsvRow again(*table, 0);
  again.integer("count", 0, 10, 0);
  EXPECT_EQ(again.status().message(), "t.csv:2: column count: got '1.5', wanted a whole number from 0 to 10");
  CsvRow flag(*table, 0);
  flag.boolean("yes", false);
  EXPECT_EQ(flag.status().message(), "t.csv:2: column yes: got 'maybe', wanted true or false");
  CsvRow name(*table, 0);
  name.name("name");
  EXPECT_THAT(std::string(name.status().message()), HasSubstr("a name of 1 to 100 bytes"));
  CsvRow second(*table, 1);
  second.number("rate", 0, 10, 1.0);
  EXPECT_FALSE(second.status().ok()) << "nan is no figure";
  CsvRow third(*table, 2);
  EXPECT_EQ(third.number("rate", 0, 10, 4.0), 4.0);
  EXPECT_EQ(third.integer("count", 0, 10, 0), 7);
  EXPECT_TRUE(third.boolean("yes", true));
  EXPECT_TRUE(third.status().ok());
  third.number("rate", 0, 10, std::nullopt);
  EXPECT_FALSE(third.status().ok()) << "an empty cell without a fallback";
}

TEST(CsvTableTest, FilesThatAreNoneAreNamed) {
  EXPECT_EQ(read_table_file("/nowhere/t.csv").status().message(), "/nowhere/t.csv: no such file");
  EXPECT_EQ(read_table_file("/tmp").status().message(), "/tmp: not a regular file");
}

}  // namespace
}  // namespace trireme
