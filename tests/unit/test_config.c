/*
 * tests/unit/test_config.c - config.json: the released one is understood, damaged ones are refused
 * with a sentence that names file, field, what was found and what was expected.
 */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "model/config.h"
#include "tests/support/tiny.h"

#define RELEASED SOURCE_DIR "/tools/configs/qwen3-omni-30b.json"

static char *released(size_t *len)
{
    char *text;
    assert_int_equal(read_file(&text, len, RELEASED, 1 << 20), 0);
    return text;
}

static void reads_the_released_model(void **state)
{
    (void)state;
    struct problems why = {0};
    static struct config c;
    size_t len;
    char *text = released(&len);
    assert_int_equal(config_parse(&c, text, len, "config.json", &why), 0);
    assert_int_equal(why.n, 0);
    assert_true(c.has_speech);
    assert_int_equal(c.thinker.layers, 48);
    assert_int_equal(c.thinker.head_dim, 128);
    assert_int_equal(c.thinker.vocab, 152064);
    assert_int_equal(c.thinker.window, 0);
    assert_true(c.thinker.theta == 1e6 && c.thinker.eps == 1e-6f && c.thinker.norm_topk);
    assert_int_equal(c.audio.chunk, 100);
    assert_int_equal(c.audio.window_chunks, 8);
    assert_int_equal(c.talker.text.experts, 128);
    assert_int_equal(c.talker.text.top_k, 6);
    assert_int_equal(c.talker.text.shared_intermediate, 768);
    assert_int_equal(c.talker.projection, 2048);
    assert_int_equal(c.talker.accept_layer, 24);
    assert_int_equal(c.talker.codec_eos, 2150);
    assert_int_equal(c.talker.n_speakers, 3);
    assert_int_equal(c.talker.predictor.layers, 5);
    assert_true(c.talker.predictor.theta == 1e6);
    assert_int_equal(c.code2wav.transformer.head_dim, 64);
    assert_int_equal(c.code2wav.transformer.window, 72);
    assert_true(c.code2wav.transformer.theta == 1e4);
    assert_int_equal(c.code2wav.frame_samples, 1920);
    assert_int_equal(c.tokens.audio_pad, 151675);
    assert_int_equal(c.generation.talker_top_k, 50);
    assert_true(decoder_is_sparse(&c.thinker, 0) && decoder_is_sparse(&c.thinker, 47));
    free(text);
}

/* The configuration with the value at `path` replaced; NULL removes it. */
static char *altered(const char *path, const char *value)
{
    size_t len;
    char *text = released(&len), key[64];
    json_t *root = json_loadb(text, len, 0, NULL), *at = root;
    free(text);
    for (const char *dot; (dot = strchr(path, '.')); path = dot + 1) {
        snprintf(key, sizeof(key), "%.*s", (int)(dot - path), path);
        json_t *inner = json_object_get(at, key);
        if (!inner) {
            inner = json_object();
            json_object_set_new(at, key, inner);
        }
        at = inner;
    }
    if (value)
        assert_int_equal(json_object_set_new(at, path, json_loads(value, JSON_DECODE_ANY, NULL)),
                         0);
    else
        assert_int_equal(json_object_del(at, path), 0);
    text = json_dumps(root, 0);
    json_decref(root);
    return text;
}

#define TEXT      "thinker_config.text_config."
#define AUDIO     "thinker_config.audio_config."
#define TALKER    "talker_config.text_config."
#define PREDICTOR "talker_config.code_predictor_config."

#define QUANT "quantization_config"
#define BITS  "\"num_bits\": 8, \"strategy\": \"group\", \"group_size\": 128"
#define PACKED(weights, more)                                                                      \
    "{\"quant_method\": \"compressed-tensors\", \"format\": \"pack-quantized\", "                  \
    "\"config_groups\": {\"g\": {\"targets\": [\"Linear\"], \"weights\": {" weights "}}}" more "}"

static const struct {
    const char *path, *value;
    const char *found, *expected;
} refused[] = {
    {"model_type", "\"llama\"", "found \"llama\"", "expected \"qwen3_omni_moe\""},
    {"model_type", NULL, "found nothing", "expected \"qwen3_omni_moe\""},
    {QUANT, "7", "found no object", "expected one"},
    {QUANT, "{\"quant_method\": \"gptq\"}", "found \"gptq\"", "compressed-tensors"},
    {QUANT, "{\"quant_method\": \"awq\", \"bits\": 4}", "found \"awq\"", "8-bit weights"},
    {QUANT, "{\"quant_method\": \"fp8\"}", "found \"fp8\"", "8-bit weights"},
    {QUANT, "{\"quant_method\": \"bitsandbytes\"}", "found \"bitsandbytes\"", "or none"},
    {QUANT, "{\"quant_method\": \"compressed-tensors\", \"format\": \"nvfp4-pack-quantized\"}",
     "found \"nvfp4-pack-quantized\"", "\"pack-quantized\" with 8-bit weights"},
    {QUANT, "{\"format\": \"float-quantized\"}", "found \"float-quantized\"", "pack-quantized"},
    {"thinker_config.quantization_config", "{}", "format: found nothing", "pack-quantized"},
    {QUANT, "{\"format\": \"pack-quantized\"}", "config_groups: found nothing", "an object"},
    {QUANT, PACKED("\"num_bits\": 4, \"strategy\": \"group\", \"group_size\": 128", ""),
     "config_groups.g.weights.num_bits: found 4", "expected 8"},
    {QUANT, PACKED(BITS ", \"symmetric\": false", ""), "symmetric: found false", "zero points"},
    {QUANT, PACKED(BITS ", \"actorder\": \"group\"", ""), "found \"group\"", "another order"},
    {QUANT, PACKED(BITS ", \"type\": \"float\"", ""), "type: found \"float\"", "\"int\""},
    {QUANT, PACKED("\"num_bits\": 8, \"strategy\": \"tensor\"", ""), "found \"tensor\"",
     "\"group\" or \"channel\""},
    {QUANT, PACKED("\"num_bits\": 8, \"strategy\": \"group\", \"group_size\": 0", ""), "found 0",
     "from 1 to 65536"},
    {QUANT, PACKED(BITS, ", \"kv_cache_scheme\": {\"num_bits\": 8}"), "found an object", "null"},
    {QUANT, PACKED(BITS, ", \"quantization_status\": \"frozen\""), "found \"frozen\"",
     "\"compressed\""},
    {QUANT,
     "{\"format\": \"pack-quantized\", \"config_groups\": {\"g\": {\"weights\": {" BITS
     "}, \"input_activations\": {\"num_bits\": 8}}}}",
     "input_activations: found an object", "only weights"},
    {TEXT "num_hidden_layers", NULL, "found nothing", "expected an integer from 1 to 512"},
    {TEXT "num_hidden_layers", "-3", "found -3", "expected an integer from 1 to 512"},
    {TEXT "num_hidden_layers", "1000000000000", "found 1000000000000", "from 1 to 512"},
    {TEXT "num_hidden_layers", "48.0", "found 48", "expected an integer"},
    {TEXT "hidden_size", "\"2048\"", "found \"2048\"", "expected an integer"},
    {TEXT "hidden_size", "[2048]", "found an array", "expected an integer"},
    {TEXT "hidden_size", "1024", "found 2048",
     "the same as thinker_config.text_config.hidden_size"},
    {TEXT "vocab_size", "0", "found 0", "expected an integer from 1"},
    {TEXT "vocab_size", "151000", "found 151644", "expected less than " TEXT "vocab_size"},
    {TEXT "num_key_value_heads", "5", "found 32", "a multiple of " TEXT "num_key_value_heads"},
    {TEXT "num_key_value_heads", "0", "found 0", "expected an integer from 1"},
    {TEXT "head_dim", "127", "found 127", "expected an even number"},
    {TEXT "head_dim", "1000000", "found 1000000", "from 2 to 1024"},
    {TEXT "num_experts_per_tok", "129", "found 129", "at most " TEXT "num_experts"},
    {TEXT "num_local_experts", "64", "found 64", "the same value as in its other spelling"},
    {TEXT "norm_topk_prob", "1", "found 1", "expected true or false"},
    {TEXT "norm_topk_prob", NULL, "found nothing", "expected true or false"},
    {TEXT "decoder_sparse_step", "0", "found 0", "expected an integer from 1"},
    {TEXT "mlp_only_layers", "[48]", "found 48", "expected numbers of layers"},
    {TEXT "mlp_only_layers", "[-1]", "found -1", "expected numbers of layers"},
    {TEXT "mlp_only_layers", "true", "found true", "expected an array"},
    {TEXT "rms_norm_eps", "0", "found 0", "expected a number from"},
    {TEXT "rms_norm_eps", "null", "found nothing", "expected a number from"},
    {TEXT "hidden_act", "\"gelu\"", "found \"gelu\"", "expected \"silu\""},
    {TEXT "attention_bias", "true", "found true", "expected false"},
    {TEXT "rope_parameters", NULL, "found nothing", "expected a number from 1"},
    {TEXT "rope_theta", "10000", "found 10000", "the same value as in its other spelling"},
    {TEXT "rope_parameters.rope_type", "\"yarn\"", "found \"yarn\"", "expected \"default\""},
    {TEXT "rope_scaling.type", "\"linear\"", "found \"linear\"", "expected \"default\""},
    {"thinker_config.text_config", "3", "found 3", "expected an object"},
    {"thinker_config.audio_token_id", NULL, "found nothing", "expected an integer from 0"},
    {"thinker_config.audio_token_id", "152064", "found 152064", "expected less than"},
    {"im_end_token_id", "-1", "found -1", "expected an integer from 0"},
    {AUDIO "num_mel_bins", "7", "found 7", "from 8 to 1024"},
    {AUDIO "output_dim", "3584", "found 3584", "the same as " TEXT "hidden_size"},
    {AUDIO "d_model", "1282", "found 1282", "a multiple of " AUDIO "encoder_attention_heads"},
    {AUDIO "n_window", "401", "found 401", "expected at most half of n_window_infer (800)"},
    {AUDIO "n_window", "0", "found 0", "expected an integer from 1"},
    {AUDIO "max_source_positions", "12", "found 50", "4 max_source_positions (12)"},
    {AUDIO "scale_embedding", "true", "found true", "expected false"},
    {"talker_config.accept_hidden_layer", "48", "found 48", "less than " TEXT "num_hidden_layers"},
    {"talker_config.accept_hidden_layer", NULL, "found nothing", "expected an integer from 0"},
    {"talker_config.num_code_groups", "33", "found 33", "from 2 to 32"},
    {"talker_config.num_code_groups", "15", "found 16",
     "the same as talker_config.num_code_groups"},
    {"talker_config.thinker_hidden_size", "1024", "found 1024", "the same as " TEXT "hidden_size"},
    {"talker_config.codec_eos_token_id", "4198", "found 4198", "less than " TALKER "vocab_size"},
    {"talker_config.speaker_id", "{}", "found an object", "1 to 64 speakers"},
    {"talker_config.speaker_id", "{\"ethan\": 3072}", "found 3072", "ids below the Talker"},
    {"talker_config.speaker_id", "{\"abcdefghijklmnopqrstuvwxyzabcdef\": 1}", "found 1",
     "at most 31 bytes"},
    {TALKER "vocab_size", "4000", "found 4000", "expected 1024 special ids"},
    {TALKER "shared_expert_intermediate_size", NULL, "found nothing", "expected an integer"},
    {PREDICTOR "hidden_size", "512", "found 512", "the same as " TALKER "hidden_size"},
    {PREDICTOR "vocab_size", "2049", "found 2049", "at most code2wav_config.codebook_size"},
    {PREDICTOR "num_code_groups", "32", "found 32", "the same as talker_config.num_code_groups"},
    {"code2wav_config.upsample_rates", "[]", "found an array", "1 to 8 integers"},
    {"code2wav_config.upsample_rates", "[8, 0]", "found 0", "integers from 1 to 64"},
    {"code2wav_config.upsample_rates", "[64, 64, 64, 64]", "found 64", "product of at most 65536"},
    {"code2wav_config.upsampling_ratios", "2", "found 2", "an array of 1 to 8"},
    {"code2wav_config.decoder_dim", "15", "found 15", "expected at least 16"},
    {"code2wav_config.sliding_window", "null", "found nothing", "expected an integer from 1"},
    {"code2wav_config.num_quantizers", "8", "found 8", "the same as talker_config.num_code_groups"},
};

static void refuses_damage(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
        struct problems why = {0};
        static struct config c;
        char *text = altered(refused[i].path, refused[i].value);
        int err = config_parse(&c, text, strlen(text), "config.json", &why);
        const char *const words[4] = {"config.json: ", refused[i].found, refused[i].expected};
        const char *dot = strrchr(refused[i].path, '.');
        const char *const field[4] = {dot ? dot + 1 : refused[i].path};
        if (err != -EINVAL || !problems_mention(&why, words) || !problems_mention(&why, field)) {
            print_message("%s = %s: %d\n", refused[i].path, refused[i].value, err);
            for (size_t k = 0; k < why.n; k++)
                print_message("  %s\n", why.text[k]);
            fail();
        }
        free(text);
        problems_free(&why);
    }
}

static const struct {
    const char *path, *value;
} accepted[] = {
    {TEXT "rope_theta", "1000000"},
    {TEXT "rope_scaling", "{\"type\": \"mrope\", \"rope_theta\": 1000000.0}"},
    {TEXT "head_dim", NULL},
    {TEXT "mlp_only_layers", NULL},
    {TEXT "mlp_only_layers", "[0, 47]"},
    {TEXT "num_experts", "0"},
    {TEXT "some_future_key", "{\"a\": [1, null]}"},
    {TALKER "num_experts", "128"},
    {QUANT, "null"},
    {QUANT, PACKED(BITS, "")},
    {QUANT, PACKED(BITS ", \"actorder\": null, \"type\": \"int\", \"symmetric\": true", "")},
    {QUANT, PACKED("\"num_bits\": 8, \"strategy\": \"channel\", \"group_size\": null", "")},
    {QUANT, PACKED("\"num_bits\": 8, \"group_size\": -1", ", \"sparsity_config\": {}")},
    {QUANT, PACKED(BITS, ", \"ignore\": [], \"kv_cache_scheme\": null, \"version\": \"0.9\"")},
    {"compression_config", PACKED(BITS, ", \"quantization_status\": \"compressed\"")},
    {TALKER "decoder_sparse_step", NULL},
    {"code2wav_config.tie_word_embeddings", "true"},
    {"code2wav_config.decoder_dim", "84"},
};

static void accepts_variants(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(accepted); i++) {
        struct problems why = {0};
        static struct config c;
        char *text = altered(accepted[i].path, accepted[i].value);
        int err = config_parse(&c, text, strlen(text), "config.json", &why);
        if (err != 0)
            print_message("%s: %s\n", accepted[i].path, why.n ? why.text[0] : "?");
        assert_int_equal(err, 0);
        assert_int_equal(why.n, 0);
        free(text);
    }
}

static void speech_may_be_absent(void **state)
{
    (void)state;
    static const char *const paths[] = {"talker_config", "code2wav_config", "enable_audio_output"};
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        static struct config c;
        char *text = altered(paths[i], i < 2 ? NULL : "false");
        assert_int_equal(config_parse(&c, text, strlen(text), "config.json", NULL), 0);
        assert_false(c.has_speech);
        free(text);
    }
}

static void reports_all_at_once(void **state)
{
    (void)state;
    struct problems why = {0};
    static struct config c;
    const char text[] = "{\"model_type\": \"qwen3_omni_moe\"}";
    assert_int_equal(config_parse(&c, text, strlen(text), "config.json", &why), -EINVAL);
    assert_true(why.n > 15);
    problems_free(&why);
}

static void refuses_what_is_no_json(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *words[4];
    } rows[] = {
        {"", {"config.json: line", "expected a JSON object"}},
        {"[]", {"config.json: found an array", "expected a JSON object"}},
        {"{\"a\": 1, \"a\": 1}", {"config.json: line 1", "duplicate object key"}},
        {"{\"a\": \"\xff\"}", {"config.json: line 1", "unable to decode byte 0xff"}},
        {"{\"a\": 1e999}", {"config.json: line 1", "real number overflow"}},
        {"{\"a\": 99999999999999999999}", {"config.json: line 1", "too big integer"}},
        {"{\"a\": NaN}", {"config.json: line 1", "expected a JSON object"}},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct problems why = {0};
        static struct config c;
        assert_int_equal(config_parse(&c, rows[i].text, strlen(rows[i].text), "config.json", &why),
                         -EINVAL);
        assert_true(problems_mention(&why, rows[i].words));
        problems_free(&why);
    }
}

static int generation(struct config *c, const char *text, struct problems *why)
{
    return config_parse_generation(c, text, strlen(text), "generation_config.json", why);
}

static void reads_generation(void **state)
{
    (void)state;
    struct problems why = {0};
    static struct config c;
    const struct generation_config *g = &c.generation;
    assert_int_equal(generation(&c, "", &why), 0);
    assert_int_equal(g->talker_max_frames, 4096);
    assert_true(g->temperature == 0 && g->talker_temperature == 0.9f && g->predictor_top_p == 0.8f);
    assert_int_equal(generation(&c, "{\"temperature\": 0.6, \"talker_top_k\": 7}", &why), 0);
    assert_int_equal(g->talker_top_k, 7);
    assert_true(g->temperature == 0); /* nobody asked for sampling */
    assert_int_equal(generation(&c, "{\"temperature\": 0.6, \"do_sample\": true}", &why), 0);
    assert_true(g->temperature == 0.6f);
    assert_int_equal(why.n, 0);
    assert_int_equal(generation(&c, "{\"talker_top_p\": 1.5}", &why), -EINVAL);
    assert_int_equal(generation(&c, "{\"talker_max_new_tokens\": -1}", &why), -EINVAL);
    assert_int_equal(generation(&c, "[1]", &why), -EINVAL);
    assert_int_equal(why.n, 3);
    const char *const words[4] = {"generation_config.json: talker_top_p", "found 1.5",
                                  "expected a number from 0 to 1"};
    assert_true(problems_mention(&why, words));
    problems_free(&why);
}

static void knows_dense_layers(void **state)
{
    (void)state;
    const struct decoder_config c = {.experts = 4, .sparse_step = 2, .dense_layers = 1u << 3};
    assert_false(decoder_is_sparse(&c, 0));
    assert_true(decoder_is_sparse(&c, 1));
    assert_false(decoder_is_sparse(&c, 3));
    assert_true(decoder_is_sparse(&c, 67));
    const struct decoder_config dense = {.sparse_step = 1};
    assert_false(decoder_is_sparse(&dense, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_the_released_model), cmocka_unit_test(refuses_damage),
        cmocka_unit_test(accepts_variants),         cmocka_unit_test(speech_may_be_absent),
        cmocka_unit_test(reports_all_at_once),      cmocka_unit_test(refuses_what_is_no_json),
        cmocka_unit_test(reads_generation),         cmocka_unit_test(knows_dense_layers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
