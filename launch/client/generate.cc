// trireme generate: one completion, streamed to the terminal or as one JSON object.

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <unistd.h>

#include "absl/strings/numbers.h"

#include "launch/client/commands.h"
#include "launch/client/connection.h"
#include "launch/client/error_report.h"
#include "launch/client/generation.h"
#include "launch/client/interrupt.h"
#include "trireme/v1/inference.grpc.pb.h"

namespace trireme::client {
namespace {

struct GenerateOptions {
  ConnectionOptions connection;
  std::string prompt, prompt_file, model, request_id;
  std::vector<int32_t> prompt_ids;
  std::vector<std::string> stop;
  int32_t max_tokens = 128;
  std::vector<std::string> logit_bias;
  std::optional<int32_t> top_k, n, min_tokens, logprobs, prompt_logprobs;
  std::optional<float> temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty;
  std::optional<uint64_t> seed;
  bool ignore_eos = false, json = false, echo = false;
};

/// gRPC itself refuses a string field that is not UTF-8, without saying which.
bool is_utf8(const std::string& text) {
  try {
    return !nlohmann::json(text).dump().empty();
  } catch (const nlohmann::json::type_error&) {
    return false;
  }
}

/// "ID=VALUE"; the same id twice is a mistake.
grpc::Status add_logit_bias(const std::string& text, v1::SamplingParams& sampling) {
  const size_t equals = text.find('=');
  int32_t id = 0;
  float bias = 0;
  if (equals == std::string::npos || !absl::SimpleAtoi(text.substr(0, equals), &id) ||
      !absl::SimpleAtof(text.substr(equals + 1), &bias)) {
    return {grpc::StatusCode::INVALID_ARGUMENT, "--logit-bias " + text + ": wanted ID=VALUE, as in 42=-1.5"};
  }
  if (!sampling.mutable_logit_bias()->insert({id, bias}).second) {
    return {grpc::StatusCode::INVALID_ARGUMENT, "--logit-bias " + text + ": the id was given before"};
  }
  return grpc::Status::OK;
}

grpc::Status fill_sampling(const GenerateOptions& options, v1::SamplingParams& sampling) {
  if (options.temperature) sampling.set_temperature(*options.temperature);
  if (options.top_k) sampling.set_top_k(*options.top_k);
  if (options.top_p) sampling.set_top_p(*options.top_p);
  if (options.min_p) sampling.set_min_p(*options.min_p);
  if (options.seed) sampling.set_seed(*options.seed);
  if (options.repetition_penalty) sampling.set_repetition_penalty(*options.repetition_penalty);
  if (options.presence_penalty) sampling.set_presence_penalty(*options.presence_penalty);
  if (options.frequency_penalty) sampling.set_frequency_penalty(*options.frequency_penalty);
  for (const std::string& text : options.logit_bias) {
    if (const grpc::Status status = add_logit_bias(text, sampling); !status.ok()) return status;
  }
  return grpc::Status::OK;
}

/// The message, or why there is none. What the user did not set stays unset: the model's defaults are the
/// server's to know, and its validator is the one that names a wrong field.
grpc::Status build_request(const GenerateOptions& options, v1::GenerateRequest& request) {
  request.set_request_id(options.request_id);
  request.set_model(options.model);
  if (!options.prompt_ids.empty()) {
    request.mutable_token_ids()->mutable_ids()->Add(options.prompt_ids.begin(), options.prompt_ids.end());
  } else if (!options.prompt_file.empty()) {
    std::ifstream file(options.prompt_file, std::ios::binary);
    request.set_text(std::string(std::istreambuf_iterator<char>(file), {}));
    if (!file)
      return {grpc::StatusCode::INVALID_ARGUMENT,
              "--prompt-file " + options.prompt_file + ": cannot read it"};
  } else {
    request.set_text(options.prompt);
  }
  if (!is_utf8(request.text())) {
    return {grpc::StatusCode::INVALID_ARGUMENT, "the prompt is not UTF-8"};
  }
  const grpc::Status sampling = fill_sampling(options, *request.mutable_sampling());
  if (!sampling.ok()) return sampling;
  v1::StoppingParams& stopping = *request.mutable_stopping();
  stopping.set_max_tokens(options.max_tokens);
  if (options.ignore_eos) stopping.set_ignore_eos(true);
  if (options.min_tokens) stopping.set_min_tokens(*options.min_tokens);
  for (const std::string& stop : options.stop) stopping.add_stop(stop);
  if (options.n) request.mutable_output()->set_n(*options.n);
  if (options.logprobs) request.mutable_output()->set_logprobs(*options.logprobs);
  if (options.prompt_logprobs) request.mutable_output()->set_prompt_logprobs(*options.prompt_logprobs);
  return grpc::Status::OK;
}

/// A model may write anything; a terminal should not obey it.
std::string printable(std::string text) {
  for (char& c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte < 0x20 && c != '\n' && c != '\t') || byte == 0x7f) c = ' ';
  }
  return text;
}

void print_text(const std::string& text) {
  static const bool terminal = isatty(STDOUT_FILENO) != 0;
  std::cout << (terminal ? printable(text) : text) << std::flush;
}

/// Several samples cannot be streamed beside each other; they come one after the other, at the end.
void print_samples(const Generation& generation) {
  for (size_t i = 0; i < generation.num_samples(); ++i) {
    std::cout << "--- sample " << i << " ---\n";
    print_text(generation.text(i) + "\n");
  }
}

int finish(const GenerateOptions& options, const Generation& generation, const grpc::Status& status,
           bool interrupted) {
  if (options.json) {
    nlohmann::json result = generation.to_json();
    if (!status.ok()) result["error"] = error_json(status);
    std::cout << result.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << std::endl;
  } else if (generation.num_tokens() > 0) {
    if (generation.num_samples() > 1)
      print_samples(generation);
    else
      std::cout << std::endl;
    std::fprintf(stderr, "%s\n", generation.summary().c_str());
  }
  if (interrupted) {
    std::fprintf(stderr, "trireme: interrupted, the request is cancelled\n");
    return kExitInterrupted;
  }
  return status.ok() ? kExitOk : report_error(status, options.connection.address);
}

int run_generate(const GenerateOptions& options) {
  v1::GenerateRequest request;
  if (const grpc::Status status = build_request(options, request); !status.ok()) {
    std::fprintf(stderr, "trireme: %s\n", status.error_message().c_str());
    return exit_code_for(status);
  }
  const auto stub = v1::Inference::NewStub(connect(options.connection));
  grpc::ClientContext context;
  set_deadline(context, options.connection.timeout_s);
  name_client(context, options.connection.client);
  const InterruptWatch watch([&context] { context.TryCancel(); });

  if (options.echo && !options.json) print_text(request.text());
  // A number that makes no sense is the server's to refuse.
  Generation generation(Generation::Clock::now(), std::clamp(options.n.value_or(1), 1, 1024));
  const auto stream = stub->Generate(&context, request);
  v1::GenerateResponse message;
  while (stream->Read(&message)) {
    const std::string text = generation.add(message, Generation::Clock::now());
    if (!options.json && generation.num_samples() == 1 && !text.empty()) print_text(text);
  }
  const grpc::Status status = stream->Finish();
  generation.end(Generation::Clock::now());
  generation.add_receipt(context.GetServerTrailingMetadata());
  return finish(options, generation, status, watch.interrupted());
}

void add_prompt_options(CLI::App& command, GenerateOptions& options) {
  auto* group = command.add_option_group("prompt", "exactly one of");
  group->add_option("--prompt", options.prompt, "the text to continue")->type_name("TEXT");
  group->add_option("--prompt-file", options.prompt_file, "read the text from a file")
      ->check(CLI::ExistingFile);
  group->add_option("--prompt-ids", options.prompt_ids, "token ids, taken as they are")
      ->delimiter(',')
      ->type_name("ID,ID,...");
  group->require_option(1);
}

void add_sampling_options(CLI::App& command, GenerateOptions& options) {
  command.add_option("--temperature", options.temperature, "0 is greedy [the model's, else 0]")
      ->type_name("X");
  command
      .add_option("--top-k", options.top_k,
                  "sample among the K most likely tokens, 0: all [the model's, else 0]")
      ->type_name("K");
  command
      .add_option("--top-p", options.top_p,
                  "sample among the most likely tokens that reach probability P [the model's, else 1]")
      ->type_name("P");
  command
      .add_option("--min-p", options.min_p,
                  "drop tokens less likely than P times the most likely one [the model's, else 0]")
      ->type_name("P");
  command
      .add_option("--repetition-penalty", options.repetition_penalty,
                  "make tokens of prompt and output less likely: above 1, at most 10 [the model's, else 1]")
      ->type_name("X");
  command
      .add_option("--presence-penalty", options.presence_penalty,
                  "lower the logits of tokens in the output, -2 to 2 [0]")
      ->type_name("X");
  command
      .add_option("--frequency-penalty", options.frequency_penalty,
                  "the same once for each time, -2 to 2 [0]")
      ->type_name("X");
  command
      .add_option("--logit-bias", options.logit_bias, "add to a token's logit; may be given up to 64 times")
      ->type_name("ID=VALUE")
      ->take_all()
      ->expected(1);
  command.add_option("--seed", options.seed, "same seed, same tokens [random]")->type_name("S");
  command.add_option("--n", options.n, "so many samples of the prompt, printed one after the other [1]")
      ->type_name("N");
  command.add_option("--stop", options.stop, "end before this text; may be given up to four times")
      ->type_name("TEXT")
      ->take_all()
      ->expected(1);
  command.add_option("--min-tokens", options.min_tokens, "no end before N new tokens [0]")->type_name("N");
  command.add_flag("--ignore-eos", options.ignore_eos, "go on past the model's end-of-text token");
}

void add_logprob_options(CLI::App& command, GenerateOptions& options) {
  command
      .add_option("--logprobs", options.logprobs,
                  "with --json: log probabilities of each token and of the K most likely, 0 to 20")
      ->type_name("K");
  command.add_option("--prompt-logprobs", options.prompt_logprobs, "the same of the prompt's tokens")
      ->type_name("K");
}

}  // namespace

void add_generate_command(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<GenerateOptions>();
  CLI::App* command = app.add_subcommand("generate", "Continue a prompt");
  command->footer(
      std::string(
          "Text goes to stdout as it comes; the last line, tokens/s and time to first token, to "
          "stderr.\nWith --json: one object with request_id, model, seed, prompt_token_ids, "
          "token_ids, text, finish_reason, usage{prompt_tokens, completion_tokens, cached_tokens}, "
          "timing{ttft_ms, total_ms, tokens_per_s, itl_ms[]}; where asked for, logprobs and "
          "prompt_logprobs[{token_id, logprob, top[{token_id, logprob}]}]; after a failure also error{code, "
          "message, field, retry_delay_ms, reason, metadata}.\n") +
      kExitCodeHelp);
  add_connection_options(*command, options->connection);
  add_prompt_options(*command, *options);
  command->add_option("--max-tokens", options->max_tokens, "at most this many new tokens")
      ->type_name("N")
      ->capture_default_str();
  add_sampling_options(*command, *options);
  add_logprob_options(*command, *options);
  command->add_option("--model", options->model, "refuse to be served by another model");
  command->add_option("--request-id", options->request_id,
                      "a name for `trireme cancel` [chosen by the server]");
  add_client_option(*command, options->connection);
  command->add_flag("--echo", options->echo, "print the prompt before its continuation");
  command->add_flag("--json", options->json, "print one JSON object at the end instead of text");
  command->callback([options, &exit_code] { exit_code = run_generate(*options); });
}

}  // namespace trireme::client
